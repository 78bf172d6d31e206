//go:build race

package main

// raceDetector tells that the program under test has the race detector in it, which takes several times the memory.
const raceDetector = true
