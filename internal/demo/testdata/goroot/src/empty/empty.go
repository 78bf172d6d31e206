// Package empty exports nothing.
package empty

func x() {}
