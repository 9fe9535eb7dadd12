package proxy

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// Those who sign in a repository do so side by side, who deletes in it is alone, and
// each gets a turn.
func TestWhatIsSignedAndWhatIsDeletedAreKeptApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s signings
		var order []string
		enter := func(name string, how func(context.Context, string) (func(), error), end chan struct{}) {
			leave, err := how(t.Context(), "local/web")
			if err != nil {
				t.Error(err)
				return
			}
			order = append(order, name)
			<-end
			leave()
		}
		ends := make([]chan struct{}, 4)
		for i := range ends {
			ends[i] = make(chan struct{})
		}
		begin := func(name string, how func(context.Context, string) (func(), error), end chan struct{}) {
			go enter(name, how, end)
			synctest.Wait()
		}
		begin("first signs", s.sign, ends[0])
		begin("second signs", s.sign, ends[1])
		begin("deletes", s.remove, ends[2])
		begin("third signs", s.sign, ends[3])
		if leave, err := s.remove(t.Context(), "local/other"); err != nil {
			t.Error(err)
		} else {
			leave()
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.remove(gone, "local/web"); !errors.Is(err, context.Canceled) {
			t.Errorf("who has left is told %v", err)
		}
		want := []string{"first signs", "second signs", "deletes", "third signs"}
		for i, n := range []int{2, 2, 3, 4} {
			if !slices.Equal(order, want[:n]) {
				t.Errorf("before end %d: %q, want %q", i, order, want[:n])
			}
			close(ends[i])
			synctest.Wait()
		}
		if len(s.held) != 0 {
			t.Errorf("%d repositories are kept", len(s.held))
		}
	})
}
