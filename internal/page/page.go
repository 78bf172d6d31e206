// Package page is the web page at /: a box to ask from, and the changes as they become searchable. It is one file without any request to
// elsewhere, and it puts what comes from documents in as text only.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"net/http"

	"github.com/labstack/echo/v4"
)

//go:embed page.html
var html []byte

// policy is the Content-Security-Policy: nothing runs but the page's own script, known by its hash, so that markup which got in could do nothing.
var policy = "default-src 'self'; script-src " + hash("script") + "; style-src " + hash("style") +
	"; img-src data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

var etag = func() string {
	sum := sha256.Sum256(html)
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}()

// hash returns the CSP source of the page's one element of that name.
func hash(element string) string {
	sum := sha256.Sum256(content(element))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func content(element string) []byte {
	_, rest, _ := bytes.Cut(html, []byte("<"+element+">"))
	inside, _, _ := bytes.Cut(rest, []byte("</"+element+">"))
	return inside
}

// Routes adds GET /.
func Routes(e *echo.Echo) {
	e.GET("/", func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", etag)
		if c.Request().Header.Get("If-None-Match") == etag {
			return c.NoContent(http.StatusNotModified)
		}
		return c.Blob(http.StatusOK, "text/html; charset=utf-8", html)
	})
}
