/*
 * Counting, sealing, registering, syncing, dying and recovering.
 *
 * One series, whose writers count while windows end, in the steps that others can
 * come between. A segment is mapped: what is written survives a kill, and a power
 * cut leaves of it what was synced, or more.
 *
 * Left out: several series, which share nothing but locks; Max and Last, which
 * differ in what a word becomes; segments without a mapped file; disks that fail.
 *
 * SYNC_ALWAYS is the policy of that name; without it counts are synced from time to
 * time. STRIPES has the series spread over two words on a collision. Every other
 * name behind an #ifdef is a mistake that must be found.
 */

#ifndef SEGMENTS
#define SEGMENTS 3 /* windows, at most */
#endif
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef ADDS
#define ADDS 1 /* calls of Add a writer makes */
#endif
#ifndef SYNCS
#define SYNCS 1 /* rounds of journal.sync() */
#endif
#ifndef DEATHS
#define DEATHS 1 /* the second comes during the recovery */
#endif

#define NONE 7 /* no segment */
#define TOMB 6 /* what Close leaves active */

/* A word: a digit for each of two writers, and wordSealed. */
#define DIGIT(w) (1 << (3 * (w)))
#define SEALED 128
#define COUNT(word) ((word) & 63)
#define FEWER(a, b) (((a) & 7) < ((b) & 7) || ((a) >> 3) < ((b) >> 3))

typedef segment {
	byte word[2];   /* the series' own, and a stripe's; with SEALED */
	bool slot[2];   /* registered: what sealWords() finds */
	bool sum;       /* the words' checksums fit, as sealSlot() writes them */
	bool closed;    /* the head says that the blocks are final */
	bool file;      /* there is one */
	byte journal;   /* what the journal says of both words together */
	bool dropped;   /* the journal was removed */
	bool writing;   /* journal.mu */
	/* What a power cut leaves at least. */
	bool named, opened, sumSafe, closedSafe;
	byte wordSafe[2], journalSafe;
	byte promised;  /* what a sync that has returned has promised */
}

segment seg[SEGMENTS];

/* The series. */
byte here = NONE;   /* Series.seg */
byte there = NONE;  /* Series.word, by its segment */
bool spread;        /* Series.spread */

/* The ledger. */
byte inUse = NONE;  /* Ledger.active */
byte begun;         /* segments so far */
bool closed;        /* Ledger.closed */
bool shard;         /* the lock of the series' shard */

/* The callers' side, by digits. */
byte called, refused, acked;

mtype = { no, killed, powerless, finished };
mtype death = no;
byte deaths;
bool wasPowerless, over;

mtype = { faulted, counted, retired, collided, errClosed };

#define LOCK(m) atomic { !m -> m = true }
#define UNLOCK(m) m = false

/* segment.word(), Series.place() and the like are one load each. */

inline tryAdd(g, i, n) {
#ifdef ADD_INSTEAD_OF_CAS
	atomic { old = seg[g].word[i]; seg[g].word[i] = old + n }
	if
	:: old & SEALED -> res = retired
	:: else -> res = counted
	fi
#else
	old = seg[g].word[i];
	if
#ifndef SEAL_WITHOUT_REGISTRATION
	:: old & SEALED -> res = retired
#endif
	:: else ->
		atomic {
			if
			:: seg[g].word[i] == old -> seg[g].word[i] = old + n; res = counted
			:: else -> res = collided
			fi
		}
	fi
#endif
	old = 0
}

/* Series.place(): the word belongs to the segment if that is the same behind it. */
inline place() {
	do
	:: p = here;
		if
		:: p == NONE -> break
		:: else
		fi;
		word = there;
		wide = spread;
#ifdef PLACE_READ_ONCE
		break
#else
		if
		:: here == p -> break
		:: else
		fi
#endif
	od
}

inline settle(g) {
	here = NONE;
	there = g;
	spread = false;
	here = g
}

/* Series.leave() */
inline leave(g) {
	word = there;
	atomic {
		if
		:: here == g -> here = NONE; wide = true
		:: else -> wide = false
		fi
	}
	if
	:: wide ->
#ifdef LEAVE_FORGETS_ANY
		there = NONE
#else
		atomic {
			if
			:: there == word -> there = NONE
			:: else
			fi
		}
#endif
	:: else
	fi;
	word = NONE; wide = false
}

/* segment.addSlot() takes a block, writes the slot and makes its cell. */
inline addSlot(g, i) {
	assert(!seg[g].slot[i]); /* one slot, so one record a window */
	seg[g].slot[i] = true
}

/* Series.register() with registerLocked() and segment.register() */
inline register() {
#ifndef REGISTER_WITHOUT_LOCK
	LOCK(shard);
#endif
	p = inUse;
	if
	:: closed -> res = errClosed
	:: else ->
		if
		:: here == p
		:: else ->
			addSlot(p, 0);
			settle(p)
		fi;
		word = p; wide = false;
		res = counted
	fi;
#ifndef REGISTER_WITHOUT_LOCK
	UNLOCK(shard)
#else
	skip
#endif
}

/* Series.divide() with segment.divide() */
inline divide(g) {
	LOCK(shard);
	if
#ifdef DIVIDE_A_RETIRED_SEGMENT
	:: here == g && !spread ->
#else
	:: here == g && !spread && inUse == g ->
#endif
		addSlot(g, 1);
		spread = true
	:: else
	fi;
	UNLOCK(shard)
}

/* journal.write() with tryWrite(), for journal.sync() and journal.commit() */
inline write(g) {
	LOCK(seg[g].writing);
	if
	:: seg[g].dropped /* the segment is safe itself */
	:: else ->
		seg[g].journal = COUNT(seg[g].word[0]) + COUNT(seg[g].word[1]); /* absolute */
		atomic { seg[g].journalSafe = seg[g].journal; seg[g].promised = seg[g].journal }
	fi;
	UNLOCK(seg[g].writing)
}

/* Series.Add(), addSlow() and count() of one writer. */
proctype Add(byte writer) {
	byte left = ADDS, p = NONE, word = NONE, old;
	bool wide;
	mtype res;
	do
	:: left > 0 ->
		left--;
		atomic { called = called + DIGIT(writer); res = collided }
		do
		:: place();
			if
			:: p == NONE -> register()
			:: else -> res = counted
			fi;
			if
			:: res == errClosed -> atomic { refused = refused + DIGIT(writer); break }
			:: else
			fi;
			assert(word != NONE);
#ifdef STRIPES
			if
			:: wide -> tryAdd(word, 1, DIGIT(writer)); wide = false
			:: res = collided /* add() goes on with the series' own word */
			fi;
			if
			:: res == collided -> tryAdd(word, 0, DIGIT(writer))
			:: else
			fi;
#else
			tryAdd(word, 0, DIGIT(writer));
#endif
			if
			:: res == counted ->
#ifdef SYNC_ALWAYS
				write(p);
#endif
				atomic { acked = acked + DIGIT(writer); break }
			:: res == retired -> leave(p)
			:: res == collided ->
#ifdef STRIPES
				divide(p)
#else
				skip
#endif
			fi
		od;
		p = NONE; word = NONE; wide = false
	:: left == 0 -> break
	od
}

#ifndef SYNC_ALWAYS
/* journal.sync(), which maintain() calls from time to time. */
proctype sync() {
	byte left = SYNCS, g;
	do
	:: atomic { left > 0 && inUse < SEGMENTS -> g = inUse; left-- };
		write(g);
		g = 0
	:: left == 0 || inUse == TOMB -> break
	od
}
#endif

/* Ledger.prepareFile() and activate(), in one step: nobody counts there before the
 * last of them. */
inline prepare(g) {
	atomic {
		seg[g].file = true;     /* store.create() */
#ifndef COUNT_BEFORE_DIRSYNC
		seg[g].named = true;    /* SyncDir() */
#endif
		seg[g].opened = true    /* encodeWho(), encodeOpened(), journal.begin() */
	}
}

/* Ledger.retire() */
inline retire(next) {
	inUse = next
}

/* index.barrier() */
inline barrier() {
#ifndef SEAL_WITHOUT_BARRIER
	!shard
#else
	skip
#endif
}

#define SYNC_BLOCKS(g) atomic { \
	seg[g].wordSafe[0] = seg[g].word[0]; \
	seg[g].wordSafe[1] = seg[g].word[1]; \
	seg[g].sumSafe = seg[g].sum \
}

/* Ledger.seal(): sealWords(), segment.image(), sealBlocks(), saveInPlace() and
 * journal.close(). */
inline seal(g) {
	if
	:: !seg[g].slot[0] -> /* segment.empty() */
		atomic { seg[g].dropped = true; seg[g].file = false } /* discard() */
	:: else ->
		seg[g].word[0] = seg[g].word[0] | SEALED; /* a CAS that succeeds at last */
#ifdef STRIPES
		if
		:: seg[g].slot[1] -> seg[g].word[1] = seg[g].word[1] | SEALED
		:: else
		fi;
#endif
		leave(g);
#ifdef JOURNAL_CLOSED_TOO_SOON
		seg[g].dropped = true;
#endif
		atomic { image[0] = seg[g].word[0]; image[1] = seg[g].word[1] }
		atomic { /* "save blocks" */
			seg[g].word[0] = image[0] | SEALED;
			seg[g].word[1] = image[1] | SEALED;
			seg[g].sum = true;
			image[0] = 0; image[1] = 0
		}
#ifdef HEAD_BEFORE_BLOCKS
		seg[g].closed = true;
		seg[g].closedSafe = true;
#endif
		SYNC_BLOCKS(g); /* "sync blocks" */
		seg[g].closed = true; /* "close head" */
		seg[g].closedSafe = true; /* "sync head" */
		atomic { !seg[g].writing -> seg[g].dropped = true } /* journal.close() */
	fi
}

/* Ledger.rotate() as often as there are windows, with sealRetired(); then maybe
 * Close(). */
proctype rotate() {
	byte last, word = NONE;
	bool wide;
	byte image[2];
	do
	:: begun < SEGMENTS && seg[inUse].slot[0] ->
		last = inUse;
		prepare(begun);
		atomic { retire(begun); begun++ }
#ifdef COUNT_BEFORE_DIRSYNC
		seg[inUse].named = true;
#endif
		barrier();
		seal(last);
		last = 0
	:: atomic { !shard -> closed = true } /* exclusively() */
		last = inUse;
		retire(TOMB);
		barrier();
		seal(last);
		death = finished;
		break
	od
}

/* What of a segment is not synced, in bits, and so may be lost. */
#define UNSYNCED(g) ( \
	(seg[g].word[0] != seg[g].wordSafe[0] || seg[g].sum != seg[g].sumSafe) \
	| (seg[g].word[1] != seg[g].wordSafe[1]) << 1 \
	| (seg[g].closed != seg[g].closedSafe) << 2 \
	| (seg[g].journal != seg[g].journalSafe) << 3 \
	| (seg[g].file && !(seg[g].named && seg[g].opened)) << 4 \
)

inline POWER_CUT(g, lost) {
	if
	:: lost & 1 -> seg[g].word[0] = seg[g].wordSafe[0]; seg[g].sum = seg[g].sumSafe
	:: else
	fi;
	if
	:: lost & 2 -> seg[g].word[1] = seg[g].wordSafe[1]; seg[g].sum = seg[g].sumSafe
	:: else
	fi;
	if
	:: lost & 4 -> seg[g].closed = seg[g].closedSafe
	:: else
	fi;
	if
	:: lost & 8 -> seg[g].journal = seg[g].journalSafe
	:: else
	fi;
	if /* with the name of the file goes that of its journal */
	:: lost & 16 -> seg[g].file = false
	:: else
	fi
}

/* The recovery is one step unless the process may die in it, too. */
#if DEATHS == 1
#define RECOVERY d_step
#define MAYBE_DIE skip
#else
#define RECOVERY atomic
#define MAYBE_DIE if \
	:: true \
	:: deaths < DEATHS -> death = killed; goto again \
	:: deaths < DEATHS -> death = powerless; goto again \
	fi
#endif

/* Ledger.recoverSegment() with survey(), replay(), sealBlocks(), saveRecovered() and
 * saveOver() */
inline recoverSegment(g) {
	if
	:: !seg[g].file
	:: seg[g].file && seg[g].closed ->
		assert(seg[g].sum); /* else its counts would count as damaged */
		seg[g].dropped = true /* removeJournals() */
	:: seg[g].file && !seg[g].closed ->
		/* The larger one, for counts only grow. */
		atomic {
			total = COUNT(seg[g].word[0]) + COUNT(seg[g].word[1]);
			if
#ifdef REPLAY_ADDS
			:: !seg[g].dropped -> total = total + seg[g].journal
#else
			:: !seg[g].dropped && FEWER(total, seg[g].journal) -> total = seg[g].journal
#endif
			:: else
			fi;
#ifdef JOURNAL_REMOVED_TOO_SOON
			seg[g].dropped = true;
#endif
			seg[g].word[0] = total | SEALED; /* "save recovered blocks" */
			seg[g].word[1] = SEALED;
			seg[g].sum = true;
			total = 0
		}
		MAYBE_DIE;
		SYNC_BLOCKS(g);
		MAYBE_DIE;
		seg[g].closed = true; /* "save recovered head" */
		MAYBE_DIE;
		seg[g].closedSafe = true;
		MAYBE_DIE;
		seg[g].dropped = true
	fi
}

/* Open(), after a death at any moment. */
proctype Open() {
	byte g, at, total;
	short unsynced, lost;
	atomic {
		if
		:: death = killed
		:: death = powerless
		:: death == finished
		fi;
again:
		deaths++;
		if
		:: death == powerless ->
			wasPowerless = true;
			unsynced = UNSYNCED(0) | UNSYNCED(1) << 5;
#if SEGMENTS == 3
			unsynced = unsynced | UNSYNCED(2) << 10;
#endif
			do
			:: unsynced ->
				d_step {
					do
					:: unsynced & 1 << at -> break
					:: else -> at++
					od;
					unsynced = unsynced & ~(1 << at)
				}
				if
				:: lost = lost | 1 << at
				:: true
				fi
			:: else -> break
			od
		:: else
		fi;
		RECOVERY {
			for (g : 0 .. SEGMENTS - 1) {
				POWER_CUT(g, lost >> 5 * g)
			}
			g = 0; at = 0; total = 0; lost = 0;
			do
			:: g < SEGMENTS -> recoverSegment(g); g++
			:: else -> break
			od;

			/* The segments' records are what the callers were told. */
			for (g : 0 .. SEGMENTS - 1) {
				if
				:: seg[g].file ->
					assert(!FEWER(COUNT(seg[g].word[0]) + COUNT(seg[g].word[1]), seg[g].promised));
					total = total + COUNT(seg[g].word[0]) + COUNT(seg[g].word[1])
				:: else -> assert(seg[g].promised == 0)
				fi
			}
			assert(!FEWER(called - refused, total)); /* nothing twice */
#ifdef SYNC_ALWAYS
			assert(!FEWER(total, acked)); /* nothing lost */
#else
			assert(wasPowerless || !FEWER(total, acked));
#endif
			over = true
		}
	}
}

init {
	atomic { /* Ledger.begin() */
		seg[0].file = true; seg[0].named = true; seg[0].opened = true;
		inUse = 0; begun = 1;
		run Add(0);
#if WRITERS == 2
		run Add(1);
#endif
#ifndef SYNC_ALWAYS
		run sync();
#endif
		run rotate(); run Open()
	}
}

/* Nothing goes on after the end. */
never {
	do
	:: !over
	od
}
