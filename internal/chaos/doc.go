// Package chaos kills processes that count, and compares what was billed with
// what their callers were told. It holds tests only.
//
// A child process counts from several goroutines: through the HTTP middleware, a
// Counter, Feature.Add with ever new subjects and Feature.Set. Before each count
// it says so on a pipe, and again when the count is acknowledged, so that the
// parent knows at the kill what was acknowledged and what was under way. The next
// child carries on in the same directory. Now and then the parent delivers
// everything that is open and holds the file of the sink against its own tally:
//
//   - per feature and subject, what is billed is what was acknowledged plus some
//     of the counts that were under way at a kill, never less and never more;
//   - every record stands in the file once, with the body of every attempt;
//   - the books and the running totals agree with the file, and nothing is open;
//   - on a good disk, no process ever counts in memory, and no file is ever damaged.
//
// The sink is a file that the children write, or a server within the parent that outlives
// them. Some are suspended for some windows before they are killed.
//
// A queue's consumers and callers with a quota are killed likewise: each message is
// billed once, and as many calls are let through, over all lives, as there is quota.
//
// A thousand rounds, over eight directories at once (each life uses up a second of
// its own, so one directory alone takes as many seconds), and how to repeat a
// schedule:
//
//	METER_KILL_ROUNDS=1000 go test -run 'TestKill$' -parallel 8 -timeout 30m -v ./internal/chaos
//	METER_KILL_ROUNDS=1000 METER_KILL_DIRS=1 go test -run 'TestKill$' -timeout 60m -v ./internal/chaos
//	METER_KILL_SEED=42 go test -run 'TestKill$' -v ./internal/chaos
//
// A seed repeats what is random in the test; where exactly a kill meets the
// child is the machine's choice.
//
// Where strace is installed, a short child is also killed right before every
// single system call that changes a file, and each of them is made to fail. Going through
// all of them, and not a sample:
//
//	METER_KILL_SYSCALLS=all go test -run 'SystemCalls$' -timeout 30m -v ./internal/chaos
//
// Where a filesystem can be mounted, its power is cut, too: the child is stopped, what
// the filesystem has not written is dropped, and the next child finds what is left. Two
// hundred times on ext4 and XFS each, and by each policy:
//
//	METER_POWER_ROUNDS=200 go test -run 'TestPowerCut$' -timeout 60m -v ./internal/chaos
//
// A process that counts the same load for an hour takes no more of its machine at the
// end (METER_SOAK is how long):
//
//	METER_SOAK=1h go test -run TestSoak -timeout 2h -v ./internal/chaos
//
// That these tests would find a mistake is shown by building mistakes in:
//
//	METER_VARIANTS=1 go test -run TestVariantsAreFound -v ./internal/chaos
package chaos
