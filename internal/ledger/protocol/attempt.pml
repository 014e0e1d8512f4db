/*
 * Attempting, dying, sending again, quarantine and merging.
 *
 * Two sealed segments, each with a record of one series, on one route, and maybe the
 * segment that they merge into; a sink, which forgets an ID once its time is over;
 * and an operator.
 *
 * Time has two hours. What was attempted in the first may be sent again within it,
 * and the sink dedupes for as long. mayResend() is a comparison here, because
 * dedupeMargin is more than a request, an answer or a sync ever takes.
 *
 * Left out: kinds other than Sum; several series; copies of a directory; a biller's
 * second thoughts; disks that fail.
 *
 * Every name behind an #ifdef is a mistake that must be found.
 */

#define A 0
#define B 1
#define M 2 /* the merged one */
#define NOBODY 3
#ifndef SENDS
#define SENDS 2 /* attempts */
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef DECISIONS
#define DECISIONS 1
#endif

/* The states of state.go. */
mtype = { absent, pending, attempted, delivered, inDoubt, voided, moved, doubtHeld, rejectedHeld };
/* What a sink answers. */
mtype = { none, applied, refused, notApplied };
/* Lines of the quarantine. */
mtype = { report, decision };

typedef slot {
	mtype state = absent;
	byte first /* hour of the first attempt that may have been applied; 0: none */
}

slot mem[3];  /* sealed.img */
slot file[3]; /* as written: outlives a kill */
slot disk[3]; /* as synced: outlives a power cut */
byte units[3]; /* what a record bills, in bits */
bool folded[3];
bool paused = true; /* of the merged one */
bool mu[3]; /* sealed.mu, where it is held for more than a step */
bool lane; /* lane.mu */

mtype line[3] = none; /* the last one about a record */
mtype decided[3]; /* what it says, if it is a decision */

/* The world. */
byte hour = 1;
byte request = NOBODY; /* the record that is on its way to the sink */
byte adrift[3]; /* requests that nobody waits for any more */
mtype answer = none; /* to the attempt that waits for one */
bool again;     /* it is not the record's first */
byte known[3];  /* to the sink, since this hour */
byte billed;    /* units */
byte writtenOff; /* units of which an operator was told so */
byte sends, decisions, deaths;
bool dead;

#define LOCK(m) atomic { !m -> m = true }
#define UNLOCK(m) m = false
#define BILLED(r) ((billed & units[r]) != 0)

#define HELD(s) (s == doubtHeld || s == rejectedHeld) /* state.held() */
#define SENDABLE(s) (s == pending || s == inDoubt) /* state.sendable() */
#define SETTLED(s) (s == delivered || s == voided || s == moved) /* state.settled() */
#ifdef MERGE_TAKES_DOUBT
#define FRESH(r) SENDABLE(mem[r].state)
#else
#define FRESH(r) (mem[r].state == pending && mem[r].first == 0) /* sealed.fresh() */
#endif
#ifdef RESEND_PAST_THE_WINDOW
#define MAY_RESEND(r) true
#else
#define MAY_RESEND(r) (mem[r].first == hour) /* mayResend() */
#endif

/* sealed.set() is a step; write() and persist() are the two halves of bringing it to
 * disk, and the lock is free while the second one waits. */
#define COPY(to, from) to.state = from.state; to.first = from.first
inline write(r) { atomic { COPY(file[r], mem[r]) } }
inline persist(r) { atomic { COPY(disk[r], file[r]) } }

/* Ledger.hold(): on paper first. The caller holds mu[r]. */
inline hold(r, as) {
#ifndef HELD_BEFORE_WRITTEN
	line[r] = report; /* quarantine.append() */
#endif
	mem[r].state = as;
	write(r);
	UNLOCK(mu[r]);
	persist(r)
#ifdef HELD_BEFORE_WRITTEN
	; line[r] = report
#endif
}

#define CAN_TAKE(r) (sends < SENDS && !lane && !mu[r] && SENDABLE(mem[r].state))

/* Ledger.Take() of one record: Batch.fill(), with sealed.take() and mark(). The oldest
 * is not always the first, for a segment may be unreadable for a moment. */
inline Take() {
	atomic {
		if
		:: CAN_TAKE(A) -> r = A
		:: CAN_TAKE(B) -> r = B
		:: CAN_TAKE(M) && !paused -> r = M
		fi;
		lane = true;
		doubted = (mem[r].state == inDoubt);
		if
		:: doubted && !MAY_RESEND(r) -> mu[r] = true; took = false /* sealed.unsendable() */
		:: else ->
			mem[r].state = attempted;
			took = true;
			again = doubted;
			sends++;
			if
			:: doubted
			:: else -> mem[r].first = hour
			fi
		fi
	}
#ifdef MARKED_OUTSIDE_THE_LANE
	UNLOCK(lane);
#endif
	if
	:: took ->
#ifdef ATTEMPT_MARKED_AFTER_SEND
		skip
#else
		write(r); persist(r)
#endif
	:: else -> hold(r, doubtHeld)
	fi;
#ifndef MARKED_OUTSIDE_THE_LANE
	UNLOCK(lane)
#else
	skip
#endif
}

/* afterAttempt(): doubt is sticky. */
inline afterAttempt() {
#ifdef DOUBT_NOT_STICKY
	doubted = false;
#endif
	if
	:: answer == applied -> to = delivered
	:: answer == refused && doubted -> to = doubtHeld
	:: answer == refused && !doubted -> to = rejectedHeld
	:: answer == notApplied && !doubted -> to = pending
	:: answer == notApplied && doubted -> to = inDoubt
	:: answer == none -> to = inDoubt
	fi
}

/* Batch.Resolve(): sealed.resolve() */
inline Resolve() {
	atomic {
		!mu[r];
		mu[r] = true;
		afterAttempt();
		if
		:: request == r -> request = NOBODY; adrift[r]++
		:: else
		fi;
		answer = none; again = false;
		assert(to != delivered || BILLED(r));
		if
		:: to == inDoubt && !MAY_RESEND(r) -> to = doubtHeld
		:: else
		fi;
		if /* until the paper is written the slot says what is surely true */
		:: HELD(to) -> mem[r].state = inDoubt
		:: else -> mem[r].state = to
		fi
	}
	write(r);
	if
	:: HELD(to) -> hold(r, to)
	:: else -> UNLOCK(mu[r])
	fi
}

#define UNLESS_DEAD unless { dead && _nr_pr == _pid + 1 }

/* route.step(), begin() and deliver(), one attempt after the other. */
proctype deliver() {
	byte r;
	bool doubted, took;
	mtype to;
	{
end:	do
	:: Take();
		if
		:: took ->
			request = r; /* sink.Sink's Deliver */
#ifdef ATTEMPT_MARKED_AFTER_SEND
			write(r); persist(r);
#endif
			if
			:: answer != none
			:: true /* its time is over */
			fi;
			Resolve()
		:: else
		fi
	od
	} UNLESS_DEAD
}

/* What a request does when it arrives, if it does. */
inline ARRIVE(r) {
	if
#ifndef NEW_ID_EACH_ATTEMPT
	:: known[r] == hour /* a duplicate, and answered as such */
#endif
	:: else ->
		assert(!BILLED(r)); /* once */
		assert((writtenOff & units[r]) == 0); /* and not what was written off */
		billed = billed | units[r];
		known[r] = hour
	fi
}

proctype SINK() {
	byte r;
end:	do
	:: atomic {
		!dead && request != NOBODY -> r = request; request = NOBODY;
		if
		:: true -> ARRIVE(r); answer = applied
		:: true -> ARRIVE(r) /* and the reply is lost */
		:: answer = refused
		:: answer = notApplied
		fi; /* a request that is lost is one that is late for ever */
		r = 0
	}
	:: atomic { !dead && adrift[A] -> adrift[A]--; ARRIVE(A) }
	:: atomic { !dead && adrift[B] -> adrift[B]--; ARRIVE(B) }
	:: atomic { !dead && adrift[M] -> adrift[M]--; ARRIVE(M) }
	od
}

proctype TIME() {
end:	atomic {
		!dead && !again && request == NOBODY;
		adrift[A] = 0; adrift[B] = 0; adrift[M] = 0;
		hour = 2
	}
}

/* store.writeSegment(): store.create() with SyncDir(), the blocks, and the head, by
 * which it is found. */
inline writeSegment() {
	mem[M].state = pending;
	write(M);
#ifndef MERGE_WITHOUT_DIRSYNC
	persist(M)
#else
	skip
#endif
}

/* sealed.moveFresh(), in memory */
inline moveFresh(r) {
	atomic {
		!mu[r];
		if
		:: FRESH(r) -> mem[r].state = moved
		:: else
		fi
	}
}

/* Ledger.mergeHour(), with sealed.takenKeys(), eachFresh() and settleMerge(). The hour
 * has other series, so that both segments take part whatever became of this one. */
inline mergeHour() {
	LOCK(lane);
	atomic {
		!mu[A];
		if
		:: FRESH(A) -> sum = 1
		:: else
		fi
	}
	if
	:: sum ->
		atomic {
			!mu[B];
			if
			:: FRESH(B) -> sum = 3
			:: else
			fi
		}
		units[M] = sum;
		sum = 0;
#ifdef MERGE_MARKS_FIRST
		moveFresh(A); moveFresh(B);
		write(A); persist(A); write(B); persist(B);
#endif
		writeSegment();
		moveFresh(A); moveFresh(B);
		write(A); write(B);
#ifndef MERGE_SENT_BEFORE_MARKS
		persist(A); persist(B);
#endif
		paused = false /* unpause() */
	:: else
	fi;
	UNLOCK(lane)
}

/* Ledger.foldSettled() of one segment: totals.write() makes its end durable, and
 * names it, before its file goes. */
#define FOLD(r) atomic { \
	!folded[r] && !mu[r] && SETTLED(mem[r].state) && !(r == M && paused) -> \
	folded[r] = true; COPY(file[r], mem[r]); COPY(disk[r], mem[r]) \
}

/* Ledger.tidy() */
proctype tidy() {
	byte sum;
	bool merged;
	{
end:	do
	:: !merged && mem[M].state == absent && !folded[A] && !folded[B] -> merged = true; mergeHour()
	:: FOLD(A)
	:: FOLD(B)
	:: FOLD(M)
	od
	} UNLESS_DEAD
}

/* sealed.decide(), which Ledger.applyDecisions() calls, too. */
inline decide(r, as) {
	mem[r].state = as;
	if
	:: as == pending -> mem[r].first = hour
	:: else
	fi
}

#define SETTLEABLE(r) (decisions < DECISIONS && !mu[r] && !folded[r] \
	&& (mem[r].state == pending || HELD(mem[r].state)))
#ifdef SETTLED_OUTSIDE_THE_LANE
#define CAN_SETTLE(r) SETTLEABLE(r)
#else
#define CAN_SETTLE(r) (!lane && SETTLEABLE(r))
#endif

/* Ledger.Settle(): settle(). An operator looks at the bill, and knows what to do. */
proctype settle() {
	byte r;
	mtype as = none;
	{
end:	do
	:: atomic {
			if
			:: CAN_SETTLE(A) -> r = A
			:: CAN_SETTLE(B) -> r = B
			:: CAN_SETTLE(M) -> r = M
			fi;
#ifndef SETTLED_OUTSIDE_THE_LANE
			lane = true;
#endif
			if
			:: mem[r].state == doubtHeld && BILLED(r) -> as = delivered
			:: mem[r].state == doubtHeld && !BILLED(r) && !adrift[r] -> as = pending
			:: mem[r].state == doubtHeld && !BILLED(r) && !adrift[r] -> as = voided
			:: mem[r].state == rejectedHeld -> as = pending
			:: mem[r].state == rejectedHeld || mem[r].state == pending ->
				assert(!BILLED(r) && !adrift[r]); /* that is what these states say */
				as = voided
			:: else /* better not yet */
			fi;
			if
			:: as != none -> mu[r] = true; decisions++
			:: else
			fi
		}
		if
		:: as != none ->
			atomic { line[r] = decision; decided[r] = as } /* quarantine.append() */
			atomic { decide(r, as) }
			write(r);
			UNLOCK(mu[r]);
			persist(r);
			if
			:: as == voided -> writtenOff = writtenOff | units[r]
			:: else
			fi
		:: else
		fi;
#ifndef SETTLED_OUTSIDE_THE_LANE
		UNLOCK(lane);
#endif
		as = none
	od
	} UNLESS_DEAD
}

proctype DEATH() {
end:	atomic { deaths < DEATHS -> deaths++; dead = true }
}

/* sealed.reconsider() and saveOver() */
inline reconsider(r) {
	if
#ifndef OPEN_FORGETS_ATTEMPTS
	:: mem[r].state == attempted -> mem[r].state = inDoubt
#else
	:: mem[r].state == attempted -> mem[r].state = pending; mem[r].first = 0
#endif
	:: else
	fi;
	write(r);
	persist(r)
}

/* Ledger.finishMerges() */
inline finishMerges() {
	if
	:: mem[M].state != absent && !folded[M] ->
		moveFresh(A); moveFresh(B);
		write(A); persist(A); write(B); persist(B)
	:: else
	fi
}

/* Ledger.applyDecisions() of one that is in force, if undone() says so. */
inline applyDecisions(r) {
	if
	:: line[r] == decision && HELD(mem[r].state) -> decide(r, decided[r]); write(r); persist(r)
#ifndef DECISION_ON_PENDING_FORGOTTEN
	:: line[r] == decision && !SETTLED(mem[r].state) && SETTLED(decided[r]) && mem[r].state != absent ->
		decide(r, decided[r]); write(r); persist(r)
#endif
	:: else
	fi
}

/* What must be true of one record whenever the ledger is open. */
#define IN_ORDER(r) \
	assert((mem[r].state == moved) == (mem[M].state != absent && (units[M] & units[r]) != 0)); \
	assert(!HELD(mem[r].state) || line[r] == report); \
	assert(line[r] != decision || decided[r] != voided || mem[r].state == voided)

/* Open() */
inline Open() {
	atomic {
		lane = false; mu[A] = false; mu[B] = false; mu[M] = false;
		if
		:: request != NOBODY -> adrift[request]++; request = NOBODY
		:: else
		fi;
		answer = none; again = false; paused = false; dead = false;
		if
		:: true /* killed */
		:: true -> /* a power cut takes nothing, or what was not synced */
			if
			:: COPY(file[A], disk[A])
			:: true
			fi;
			if
			:: COPY(file[B], disk[B])
			:: true
			fi;
			if
			:: COPY(file[M], disk[M])
			:: true
			fi
		fi;
		COPY(mem[A], file[A]); COPY(mem[B], file[B]); COPY(mem[M], file[M]);
		reconsider(A); reconsider(B); reconsider(M);
		finishMerges();
		applyDecisions(A); applyDecisions(B); applyDecisions(M);
		IN_ORDER(A); IN_ORDER(B);
		assert(!HELD(mem[M].state) || line[M] == report)
	}
}

init {
	atomic {
		units[A] = 1; units[B] = 2;
		mem[A].state = pending; file[A].state = pending; disk[A].state = pending;
		mem[B].state = pending; file[B].state = pending; disk[B].state = pending;
		run SINK(); run TIME()
	}
end:	do
	:: atomic { run deliver(); run tidy(); run settle(); run DEATH() }
endWait:	dead && _nr_pr == 3;
		Open()
	od
}
