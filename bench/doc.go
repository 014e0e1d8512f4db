// Package bench compares what meter costs with what a Go program pays anyway, in
// one run on one machine. It is a module of its own, so that nobody who imports
// meter gets what it compares with.
package bench
