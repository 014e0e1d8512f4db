package main

import "slices"

// tables are all there are, in the order in which they run.
func tables() []table {
	return slices.Concat(
		countingTables(),
		requestTables(),
		licenseTables(),
		durableTables(),
		stallTables(),
		deliveryTables(),
		memoryTables(),
		startTables(),
		importTables(),
	)
}
