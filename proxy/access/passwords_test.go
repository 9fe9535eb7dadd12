package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// counted makes p count what it hashes.
func counted(p *Passwords) *atomic.Int64 {
	var hashed atomic.Int64
	p.compare = func(hash, password []byte) error {
		hashed.Add(1)
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	return &hashed
}

func passwords(t testing.TB, users ...string) *Passwords {
	t.Helper()
	file := ""
	for _, user := range users {
		file += user + ":" + hashOf(t, user+"-secret") + "\n"
	}
	p, err := ParsePasswords([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAPasswordHoldsForItsUserAlone(t *testing.T) {
	p := passwords(t, "alice", "bob")
	for _, c := range []struct {
		user, password string
		holds          bool
	}{
		{"alice", "alice-secret", true},
		{"bob", "bob-secret", true},
		{"alice", "bob-secret", false},
		{"alice", "", false},
		{"alice", "alice-secret ", false},
		{"Alice", "alice-secret", false},
		{"carol", "alice-secret", false},
		{"", "", false},
		// the letters of a pair that holds, cut elsewhere
		{"alicea", "lice-secret", false},
		{"alic", "ealice-secret", false},
	} {
		for range 2 { // the second may come from memory
			err := p.Check(t.Context(), c.user, c.password)
			if c.holds && err != nil || !c.holds && !errors.Is(err, ErrCredentials) {
				t.Errorf("%s:%s: %v", c.user, c.password, err)
			}
		}
	}
}

func TestWhoDoesNotExistCostsAHashToo(t *testing.T) {
	p := passwords(t, "alice")
	hashed := counted(p)
	for i, user := range []string{"alice", "carol", "carol", ""} {
		p.Check(t.Context(), user, "guess")
		if hashed.Load() != int64(i+1) {
			t.Errorf("%q: %d hashes, want %d", user, hashed.Load(), i+1)
		}
	}
}

func TestAPasswordThatHeldIsHashedAgainAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := passwords(t, "alice")
		hashed := counted(p)
		check := func(password string, want int64) {
			t.Helper()
			p.Check(t.Context(), "alice", password)
			if hashed.Load() != want {
				t.Errorf("%d hashes, want %d", hashed.Load(), want)
			}
		}
		check("alice-secret", 1)
		check("alice-secret", 1)
		time.Sleep(heldFor - time.Nanosecond)
		check("alice-secret", 1)
		time.Sleep(time.Nanosecond)
		check("alice-secret", 2)
		check("wrong", 3)
		check("wrong", 4) // what does not hold is not remembered
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	p := passwords(t, "alice")
	p.compare = func(_, _ []byte) error { return nil }
	for i := range maxHeld + 10 {
		if err := p.Check(t.Context(), "alice", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if p.held.Len() != maxHeld {
		t.Error(p.held.Len())
	}
}

// TestAFloodOfGuesses lets more callers guess than may wait: hashing is bounded,
// the rest is told so, and who was known before is not kept out.
func TestAFloodOfGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := passwords(t, "alice")
		if err := p.Check(t.Context(), "alice", "alice-secret"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(heldFor)
		var running, most atomic.Int64
		release := make(chan struct{})
		p.compare = func(hash, password []byte) error {
			if string(password) == "alice-secret" {
				return nil
			}
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-release
			return bcrypt.ErrMismatchedHashAndPassword
		}
		var busy, wrong atomic.Int64
		var group sync.WaitGroup
		for i := range maxWaiting + 50 {
			group.Go(func() {
				switch err := p.Check(t.Context(), "alice", fmt.Sprint(i)); {
				case errors.Is(err, ErrBusy):
					busy.Add(1)
				case errors.Is(err, ErrCredentials):
					wrong.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if busy.Load() != 50 || int(most.Load()) != cap(p.guessing) {
			t.Errorf("%d were sent away and %d hash at once, want 50 and %d", busy.Load(), most.Load(), cap(p.guessing))
		}
		if err := p.Check(t.Context(), "alice", "alice-secret"); err != nil {
			t.Errorf("who was known is kept out: %v", err)
		}
		close(release)
		group.Wait()
		if wrong.Load() != maxWaiting {
			t.Errorf("%d were told that it is wrong", wrong.Load())
		}
	})
}

func TestWhoLeavesDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := passwords(t, "alice")
		release := make(chan struct{})
		p.compare = func(hash, password []byte) error { <-release; return nil }
		for i := range cap(p.guessing) { // all places are taken
			go p.Check(t.Context(), "alice", fmt.Sprint(i))
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { left <- p.Check(ctx, "alice", "alice-secret") }()
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(release)
		synctest.Wait()
		if len(p.waiting) != 0 || len(p.guessing) != 0 {
			t.Errorf("%d wait and %d hash", len(p.waiting), len(p.guessing))
		}
	})
}

func TestCallersWithTheSamePasswordShareAHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := passwords(t, "alice")
		release := make(chan struct{})
		var hashed atomic.Int64
		p.compare = func(hash, password []byte) error { hashed.Add(1); <-release; return nil }
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				if err := p.Check(t.Context(), "alice", "alice-secret"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(release)
		group.Wait()
		if hashed.Load() != 1 {
			t.Errorf("%d hashes", hashed.Load())
		}
	})
}

// FuzzHtpasswd states that every user of a file that is accepted has a hash that
// bcrypt reads, within the cost, and a name that may stand in the list.
func FuzzHtpasswd(f *testing.F) {
	f.Add([]byte("alice:" + withCost(10) + "\n"))
	f.Add([]byte("# x\r\n\r\nalice:$apr1$x$y\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		p, err := ParsePasswords(file)
		if err != nil {
			if _, ok := errors.AsType[*LineError](err); !ok {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		for user, hash := range p.users {
			if cost, err := bcrypt.Cost(hash); err != nil || cost > MaxCost || CheckUser(user) != nil {
				t.Errorf("%q: cost %d, %v, %v", user, cost, err, CheckUser(user))
			}
		}
	})
}
