// Package mocktest proves the shape of what stripesink sends: it sends it to
// Stripe's own stripe-mock, which validates requests by Stripe's specification.
//
// stripe-mock has no memory, so tests about money are elsewhere. It is a program
// with dependencies of its own, so this is a module of its own, and the test
// installs the program from the module proxy, pinned to a version and verified by
// Go's checksum database. Without a network the tests are skipped.
package mocktest
