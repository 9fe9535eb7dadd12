package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"vidimus/policy"
)

// MaxRecent is how many decisions a DecisionLog keeps for being asked about, and
// MaxRecentBytes up to what size in all: what upstreams have made sign long
// texts leaves room for fewer.
const (
	MaxRecent      = 10_000
	MaxRecentBytes = 12 << 20
)

func newRecord(d policy.Decision, evaluateErr error, a asker) Record {
	r := Record{
		ID: d.ID, Time: d.Time, Reason: d.Reason, Explained: d.Explained, Hint: d.Hint,
		Repository: d.Subject.Repository, Reference: a.reference,
		Policy: d.Policy, Enforcement: d.Enforcement.String(), Served: d.Served(),
		Authorities: d.Satisfied, Via: d.Via, Subject: d.About, Exception: d.Exception, Evidence: evidenceJSON(d), Remedies: d.Remedies,
		Client: a.client, Caller: a.caller, UserAgent: a.userAgent, Revision: d.Revision,
	}
	if !isZero(d.Subject.Digest) {
		r.Digest = d.Subject.Digest.String()
	}
	switch {
	case evaluateErr != nil:
		r.Decision = "inconclusive"
		if r.Causes = d.Causes; len(r.Causes) == 0 {
			r.Causes = []string{printableText(evaluateErr.Error())}
		}
	case d.Allowed:
		r.Decision = "allowed"
	default:
		r.Decision = "denied"
	}
	return r
}

func evidenceJSON(d policy.Decision) json.RawMessage {
	if len(d.Evidence) == 0 {
		return nil
	}
	encoded, err := json.Marshal(d.Pieces())
	if err != nil {
		return nil
	}
	return encoded
}

// printableText is printable for a sentence rather than a name.
func printableText(s string) string {
	const most = 1024
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// DecisionLog is a Recorder that writes JSON lines, and keeps the latest records
// for being asked about, within MaxRecent and MaxRecentBytes. It is safe for
// concurrent use.
type DecisionLog struct {
	mu     sync.Mutex
	out    io.Writer
	file   *os.File // out, when the log owns a file
	path   string
	size   int64
	most   int64
	recent []Record // the oldest first
	bytes  int      // of recent
}

// NewDecisionLog returns a log that writes to out; nil writes nowhere.
func NewDecisionLog(out io.Writer) *DecisionLog { return &DecisionLog{out: out} }

// OpenDecisionLog returns a log that appends to the file at path. When the file
// would grow beyond most bytes it is renamed to path.1, replacing an older one,
// and begun anew; zero never does.
func OpenDecisionLog(path string, most int64) (*DecisionLog, error) {
	l := &DecisionLog{path: path, most: most}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *DecisionLog) open() error {
	file, err := os.OpenFile(filepath.Clean(l.path), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open the decision log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open the decision log: %w", err), file.Close())
	}
	l.file, l.out, l.size = file, file, info.Size()
	return nil
}

// Close closes the file that the log owns.
func (l *DecisionLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	l.out = brokenWriter{os.ErrClosed}
	return err
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

// Record implements Recorder: one line, written before it returns.
func (l *DecisionLog) Record(_ context.Context, record Record) error {
	line, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode a decision: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(record)
	if l.out == nil {
		return nil
	}
	if err := l.rotate(int64(len(line)) + 1); err != nil {
		return err
	}
	n, err := l.out.Write(append(line, '\n'))
	l.size += int64(n)
	if err != nil {
		return fmt.Errorf("write a decision: %w", err)
	}
	return nil
}

func (l *DecisionLog) keep(record Record) {
	l.recent = append(l.recent, record)
	l.bytes += record.cost()
	for len(l.recent) > MaxRecent || l.bytes > MaxRecentBytes && len(l.recent) > 1 {
		l.bytes -= l.recent[0].cost()
		l.recent[0] = Record{}
		l.recent = l.recent[1:]
	}
}

// cost is about what a record holds in memory.
func (r *Record) cost() int {
	const record = 512
	n := record + len(r.ID) + len(r.Explained) + len(r.Hint) + len(r.Repository) + len(r.Reference) + len(r.Digest) +
		len(r.Via) + len(r.Subject) + len(r.Exception) + len(r.Evidence) + len(r.Client) + len(r.Caller) + len(r.UserAgent)
	for _, list := range [][]string{r.Causes, r.Authorities} {
		for _, text := range list {
			n += listedSize + len(text)
		}
	}
	return n + remediesCost(r.Remedies)
}

func (l *DecisionLog) rotate(more int64) error {
	if l.file == nil || l.most <= 0 || l.size == 0 || l.size+more <= l.most {
		return nil
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("rotate the decision log: %w", err)
	}
	l.file, l.out = nil, brokenWriter{os.ErrClosed}
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return errors.Join(fmt.Errorf("rotate the decision log: %w", err), l.open())
	}
	return l.open()
}

// Query says which records are wanted. Empty fields want all.
type Query struct {
	Image  string // part of repository:reference, or of the digest
	Client string // the address, or the caller's name
	Reason string // the reason, or allowed, denied or inconclusive
	ID     string // beginning of the identifier
	Since  time.Time
}

// Matches reports whether a record is wanted.
func (q Query) Matches(r Record) bool {
	image := r.Repository + ":" + r.Reference
	return (q.Image == "" || strings.Contains(image, q.Image) || strings.Contains(r.Digest, q.Image)) &&
		(q.Client == "" || r.Client == q.Client || r.Caller == q.Client) &&
		(q.Reason == "" || r.Reason == q.Reason || r.Decision == q.Reason) &&
		strings.HasPrefix(r.ID, q.ID) && !r.Time.Before(q.Since)
}

// Search returns the recent records that are wanted, the oldest first.
func (l *DecisionLog) Search(q Query) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []Record
	for i := range l.recent {
		if q.Matches(l.recent[i]) {
			found = append(found, l.recent[i])
		}
	}
	return found
}

// maxRecordLine bounds one line of a decision log that is read.
const maxRecordLine = 1 << 20

// ReadDecisions calls yield with each record of a decision log that is wanted.
// Other lines are passed over, since the output of a container mixes decisions
// with the log; input without one record among its lines is an error.
func ReadDecisions(r io.Reader, q Query, yield func(Record) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxRecordLine)
	other, records := 0, 0
	for lines.Scan() {
		var record Record
		if json.Unmarshal(lines.Bytes(), &record) != nil || record.ID == "" || record.Decision == "" {
			other++
			continue
		}
		records++
		if !q.Matches(record) {
			continue
		}
		if err := yield(record); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read decisions: %w", err)
	}
	if records == 0 && other > 0 {
		return fmt.Errorf("none of %d lines is a decision record", other)
	}
	return nil
}
