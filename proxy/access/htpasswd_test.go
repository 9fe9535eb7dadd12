package access

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// hashOf is the hash of password as cheap as bcrypt makes one.
func hashOf(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

// withCost is a whole hash of that cost.
func withCost(cost int) string { return fmt.Sprintf("$2y$%02d$%s", cost, strings.Repeat("a", 53)) }

func TestAnHtpasswdFileHoldsUsersAndComments(t *testing.T) {
	p, err := ParsePasswords([]byte("# made by htpasswd\r\n\nalice:" + withCost(10) + "\r\nbob@example:" + strings.Replace(withCost(4), "$2y$", "$2b$", 1) + "  \n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.Users(), " "); got != "alice bob@example" {
		t.Error(got)
	}
}

func TestAnEmptyHtpasswdFileKnowsNobody(t *testing.T) {
	p, err := ParsePasswords(nil)
	if err != nil || len(p.Users()) != 0 {
		t.Fatal(p, err)
	}
	for _, user := range []string{"", "root"} {
		if err := p.Check(t.Context(), user, ""); !errors.Is(err, ErrCredentials) {
			t.Errorf("%q: %v", user, err)
		}
	}
}

func TestWhatAnHtpasswdFileMayNotHold(t *testing.T) {
	const secret = "c4narySecret"
	for name, c := range map[string]struct{ file, want string }{
		"a line without a hash":   {secret, "line 1: is no user:hash"},
		"a password as it is":     {"alice:" + secret, "line 1: the hash of user alice is not bcrypt"},
		"MD5":                     {"# x\nalice:$apr1$" + secret, "line 2: the hash of user alice is MD5"},
		"SHA-1":                   {"alice:{SHA}" + secret, "line 1: the hash of user alice is SHA-1"},
		"SHA-256":                 {"alice:$5$" + secret, "is SHA-256"},
		"SHA-512":                 {"alice:$6$" + secret, "is SHA-512"},
		"a hash cut short":        {"alice:" + withCost(10)[:59], "not whole"},
		"more after the hash":     {"alice:" + withCost(10) + ":" + secret, "not bcrypt, or not whole"},
		"a cost that takes hours": {"alice:" + withCost(31), "cost 31, more than 14"},
		"a cost that takes long":  {"alice:" + withCost(15), "cost 15, more than 14"},
		"a cost below bcrypt's":   {"alice:" + withCost(3), "is no bcrypt hash that can be read"},
		"a user twice":            {"alice:" + withCost(4) + "\nbob:" + withCost(4) + "\nalice:" + withCost(5), "line 3: user alice stands in line 1 already"},
		"no user":                 {":" + withCost(4), "line 1: the name of the user is empty"},
		"a space in a user":       {" alice:" + withCost(4), "holds a space"},
		"a user not of ASCII":     {"ålice:" + withCost(4), "printable ASCII"},
		"a user called anonymous": {"anonymous:" + withCost(4), "means others in auth.access"},
		"and authenticated":       {"authenticated:" + withCost(4), "means others in auth.access"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePasswords([]byte(c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if _, ok := errors.AsType[*LineError](err); !ok {
				t.Errorf("%T names no line", err)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("shows what it should not: %v", err)
			}
		})
	}
}

func TestAllFaultsOfAnHtpasswdFileAreTold(t *testing.T) {
	_, err := ParsePasswords([]byte("alice\nbob:x\n"))
	if err == nil || !strings.Contains(err.Error(), "line 1:") || !strings.Contains(err.Error(), "line 2:") {
		t.Error(err)
	}
}

func TestTheCostThatIsAllowedAtMost(t *testing.T) {
	p, err := ParsePasswords([]byte("alice:" + withCost(MaxCost) + "\nbob:" + withCost(5)))
	if err != nil {
		t.Fatal(err)
	}
	if cost, err := bcrypt.Cost(p.absent); err != nil || cost != MaxCost {
		t.Errorf("users that do not exist cost %d, %v", cost, err)
	}
}
