package access

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Bounds of an htpasswd file. A hash of MaxCost takes about a second, and whoever
// reaches the port can have one computed.
const (
	MaxUsers = 10_000
	MaxCost  = 14
)

// LineError is what is wrong with one line of an htpasswd file. It shows nothing
// of the line but a user's name.
type LineError struct {
	Line int // from 1
	What string
	Fix  string
}

// Error returns the line, what is wrong and the fix.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s; %s", e.Line, e.What, e.Fix) }

// bcryptPattern is a whole bcrypt hash, as htpasswd, OpenBSD and PHP mark it.
var bcryptPattern = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// otherHashes are the beginnings of hashes that htpasswd and its kin write
// besides bcrypt.
var otherHashes = []struct{ prefix, name string }{
	{"$apr1$", "MD5"}, {"$1$", "MD5"}, {"{SHA}", "SHA-1"}, {"{SSHA}", "SHA-1"},
	{"$5$", "SHA-256"}, {"$6$", "SHA-512"}, {"$argon2", "Argon2"}, {"$y$", "yescrypt"}, {"$2x$", "a faulty bcrypt"},
}

const bcryptFix = "make the hash with bcrypt: htpasswd -nB USER"

// parseHtpasswd returns the hash of each user of an htpasswd file: lines of
// user:hash, empty ones and comments beginning with # aside. All that is wrong
// is one joined error of *LineError.
func parseHtpasswd(data []byte) (map[string][]byte, error) {
	users := make(map[string][]byte)
	lines := make(map[string]int)
	var faults []error
	fail := func(line int, what, fix string) { faults = append(faults, &LineError{line, what, fix}) }
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimRight(string(line), " \t\r\n")
		if text == "" || text[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(text, ":")
		if !ok {
			fail(number, "is no user:hash", bcryptFix)
			continue
		}
		if what := checkUser(user); what != "" {
			fail(number, what, "name the user otherwise")
			continue
		}
		if before, ok := lines[user]; ok {
			fail(number, fmt.Sprintf("user %s stands in line %d already", user, before), "remove one of the two")
			continue
		}
		lines[user] = number
		if what, fix := checkHash(hash); what != "" {
			fail(number, "the hash of user "+user+" "+what, fix)
			continue
		}
		if users[user] = []byte(hash); len(users) > MaxUsers {
			fail(number, fmt.Sprintf("there are more than %d users", MaxUsers), "remove some")
			break
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return users, nil
}

// CheckUser returns why name can be no user's, or nil.
func CheckUser(name string) error {
	if what := checkUser(name); what != "" {
		return errors.New(what)
	}
	return nil
}

func checkUser(name string) string {
	const longest = 255
	switch {
	case name == "":
		return "the name of the user is empty"
	case len(name) > longest:
		return fmt.Sprintf("the name of the user is longer than %d bytes", longest)
	case name == SubjectAnonymous || name == SubjectAuthenticated:
		return "the user is called " + name + ", which means others in auth.access"
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "the name of the user holds a space, or what is not printable ASCII"
	}
	return ""
}

func checkHash(hash string) (what, fix string) {
	if bcryptPattern.MatchString(hash) {
		cost, err := bcrypt.Cost([]byte(hash))
		switch {
		case err != nil:
			return "is no bcrypt hash that can be read", bcryptFix
		case cost > MaxCost:
			return fmt.Sprintf("has cost %d, more than %d, and takes seconds to check", cost, MaxCost), "make it anew with a lower cost: htpasswd -nB -C 10 USER"
		}
		return "", ""
	}
	for _, other := range otherHashes {
		if strings.HasPrefix(hash, other.prefix) {
			return "is " + other.name + ", not bcrypt", bcryptFix
		}
	}
	return "is not bcrypt, or not whole", bcryptFix
}

// highestCost is the highest cost among hashes; bcrypt's own default without any.
func highestCost(users map[string][]byte) int {
	highest := 0
	for _, hash := range users {
		cost, err := bcrypt.Cost(hash)
		if err == nil {
			highest = max(highest, cost)
		}
	}
	if highest == 0 {
		return bcrypt.DefaultCost
	}
	return highest
}

func sortedNames(users map[string][]byte) []string {
	names := make([]string, 0, len(users))
	for name := range users {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
