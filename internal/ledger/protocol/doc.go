// Package protocol holds models of the two protocols that money hangs on, in
// Promela, and the tests that have spin go through all of their states: count.pml
// (count, seal, register, sync, die, recover) and attempt.pml (attempt, die, send
// again, quarantine, merge). It holds tests only.
//
// The models describe the code of internal/ledger and internal/delivery, step by step.
// A name before () in a comment is a function there, and so is the name of an inline
// or a process, unless that is in capitals; the tests hold both against the code, and
// whoever changes the order of steps in such a function changes the model, too.
//
// Every mistake that a model knows by name, as an #ifdef, must give a counterexample,
// or the model would prove nothing. One of them, in the steps that lead to it:
//
//	cd internal/ledger/protocol
//	spin -DADD_INSTEAD_OF_CAS -a count.pml && gcc -DSAFETY -o pan pan.c && ./pan -m100000
//	spin -DADD_INSTEAD_OF_CAS -t -p -g count.pml
package protocol
