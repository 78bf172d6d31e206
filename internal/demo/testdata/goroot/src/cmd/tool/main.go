package main

func X() {}

func main() {}
