package ledger

func (l *Ledger) adoptOrphans() {}
