package store

import "time"

// What bounds a Store. Everything that another party sizes is capped here.
const (
	// DefaultMemory is Config.MaxMemory when it is zero.
	DefaultMemory = 256 << 20

	// MaxTransfers is the number of background transfers at one time. A
	// transfer beyond it displaces the one that has been abandoned longest, or
	// else waits its turn for as long as somebody waits for it. What is passed
	// through is not counted: each such transfer belongs to one reader. A
	// quarter is left to other owners than those of one host, which may drip.
	MaxTransfers = 64

	// MaxResumes is how often one transfer is taken up again after it broke.
	MaxResumes = 3

	// AbandonedTime and AbandonedBytes bound a transfer that nobody reads any
	// more: it goes on, since clients that left tend to come back, until
	// either is spent.
	AbandonedTime  = 2 * time.Minute
	AbandonedBytes = 256 << 20

	// MaxUnsized is the most that is kept of content whose size neither the
	// caller nor the upstream told. What is longer is passed through.
	MaxUnsized = 1 << 30

	// MaxParents is the number of manifests remembered for each repository and
	// child.
	MaxParents = 32

	// MaxName is the length of the longest repository name or tag, in bytes,
	// that the index remembers.
	MaxName = 512

	// MaxPending is the number of hints that may wait for the index file.
	// Beyond it a hint is lost rather than a request delayed.
	MaxPending = 1 << 15

	// MaxIndexFile is the size at which the index file is thrown away. It
	// holds hints only; what is needed is learned again.
	MaxIndexFile = 1 << 30
)

const (
	// holdBack is how much of a content's end waits for its digest to hold.
	holdBack = 64 << 10

	// maxLooks is how many held contents are hashed at one time.
	maxLooks = 16

	// maxSeals is how many bytes of tags are remembered, of the content that was
	// used last: those of some 64 GiB.
	maxSeals = 8 << 20

	// flushDelay is how long hints gather before they are written together.
	flushDelay = time.Second
)

// tableMemory is how many bytes a table of an index in memory may take. The
// tables are apart so that a flood of one kind does not drown another.
func tableMemory(t table) int64 {
	switch t {
	case tableTags:
		return 8 << 20
	case tableDelivered:
		return 16 << 20
	case tableParents:
		return 32 << 20
	case tableRepositories:
		return 4 << 20
	}
	return 0
}

// recentMemory is how many bytes a table of what was last used of an index file
// may take.
func recentMemory(t table) int64 {
	switch t {
	case tableTags:
		return 512 << 10
	case tableDelivered:
		return 1 << 20
	case tableParents:
		return 2 << 20
	case tableRepositories:
		return 128 << 10
	}
	return 0
}

// limits are the constants above that tests make smaller.
type limits struct {
	transfers      int
	abandonedTime  time.Duration
	abandonedBytes int64
	unsized        int64
	indexFile      int64
	pending        int
	patience       time.Duration
}

func defaultLimits() limits {
	return limits{
		transfers:      MaxTransfers,
		abandonedTime:  AbandonedTime,
		abandonedBytes: AbandonedBytes,
		unsized:        MaxUnsized,
		indexFile:      MaxIndexFile,
		pending:        MaxPending,
		patience:       laggardPatience,
	}
}
