package policy

import (
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxName is the longest canonical repository, in bytes: an upstream's name
// and a repository of the 255 that distribution's reference grammar allows.
const maxName = 512

// hub is the canonical name of Docker Hub, the one registry that goes by
// several names and whose one-component repositories have an unwritten
// "library/" in front.
const hub = "docker.io"

// hubNames are docker.io and the other names of the same registry, in the
// order of the bits in canon.hubs.
var hubNames = [...]string{hub, "index.docker.io", "registry-1.docker.io"}

// canon is a state of the automaton that accepts exactly the canonical
// repositories: an upstream's name and at least one component of distribution's
// grammar, all in lower case, docker.io under no other name and with at least
// two components after it. The zero value is the start.
type canon struct {
	component uint8 // 0: the upstream's name, 1: the component after it, 2: a later one
	end       uint8 // what the component ends in so far: one of the end constants
	docker    bool  // the upstream is docker.io
	hubs      uint8 // in component 0: which hubNames do not fit what was read
	offset    uint8 // in component 0: bytes read, as long as a hubName fits
}

const (
	endEmpty  = iota // nothing yet
	endLetter        // a letter or a digit: the component may end here
	endDot           // '.', or ':' in the upstream's name: a letter must follow
	endUnder         // "_"
	endUnder2        // "__"
	endDash          // any number of '-'
	endNever         // no component goes on like that
)

// Classes of bytes that the grammar tells apart.
const (
	classOther = iota
	classLetter
	classDot // and ':', which stands in an upstream's name alone
	classUnder
	classDash
	classCount
)

var classes = func() (table [256]uint8) {
	for b := byte('a'); b <= 'z'; b++ {
		table[b] = classLetter
	}
	for b := byte('0'); b <= '9'; b++ {
		table[b] = classLetter
	}
	table['.'], table[':'], table['_'], table['-'] = classDot, classDot, classUnder, classDash
	return table
}()

// grammar is that of a component, [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*, with ':' as
// one more separator in an upstream's name (distribution-spec, "Pulling
// manifests"): what a component ends in after a byte of each class.
var grammar = [endNever][classCount]uint8{
	endEmpty:  {endNever, endLetter, endNever, endNever, endNever},
	endLetter: {endNever, endLetter, endDot, endUnder, endDash},
	endDot:    {endNever, endLetter, endNever, endNever, endNever},
	endUnder:  {endNever, endLetter, endNever, endUnder2, endNever},
	endUnder2: {endNever, endLetter, endNever, endNever, endNever},
	endDash:   {endNever, endLetter, endNever, endNever, endDash},
}

const noHub = 1<<len(hubNames) - 1

// step reads one byte; false means that no canonical name goes on like that.
func (c canon) step(b byte) (canon, bool) {
	if b == '/' {
		return c.nextComponent()
	}
	end, ok := c.nextEnd(b)
	if !ok {
		return canon{}, false
	}
	c.end = end
	if c.component == 0 && c.hubs != noHub {
		for i, name := range hubNames {
			if int(c.offset) >= len(name) || name[c.offset] != b {
				c.hubs |= 1 << i
			}
		}
		if c.offset++; c.hubs == noHub {
			c.offset = 0 // what is no hub's name is one state
		}
	}
	return c, true
}

// nextEnd applies the grammar of a component.
func (c canon) nextEnd(b byte) (uint8, bool) {
	end := grammar[c.end][classes[b]]
	return end, end != endNever && (b != ':' || c.component == 0)
}

func (c canon) nextComponent() (canon, bool) {
	if c.end != endLetter {
		return canon{}, false
	}
	next := canon{component: min(c.component+1, 2), docker: c.docker}
	if c.component != 0 {
		return next, true
	}
	for i, name := range hubNames {
		if c.hubs&(1<<i) == 0 && int(c.offset) == len(name) {
			if name != hub {
				return canon{}, false
			}
			next.docker = true
		}
	}
	return next, true
}

// complete reports whether a canonical name may end here.
func (c canon) complete() bool {
	return c.end == endLetter && (c.component == 2 || c.component == 1 && !c.docker)
}

// hubBytes returns the bytes with which a hub's name would go on.
func (c canon) hubBytes() []byte {
	var bytes []byte
	for i, name := range hubNames {
		if c.component == 0 && c.hubs&(1<<i) == 0 && int(c.offset) < len(name) {
			bytes = append(bytes, name[c.offset])
		}
	}
	return bytes
}

// appendKey appends bytes that tell the state from every other.
func (c canon) appendKey(key []byte) []byte {
	docker := byte(0)
	if c.docker {
		docker = 1
	}
	return append(key, c.component, c.end, docker, c.hubs, c.offset)
}

// isCanonical reports whether name is a canonical repository: whether canon
// accepts it, at the speed that every request needs.
func isCanonical(name string) bool {
	slash := strings.IndexByte(name, '/')
	if slash < 0 || len(name) > maxName || strings.IndexByte(name[slash:], ':') >= 0 {
		return false
	}
	switch name[:slash] {
	case hub:
		if strings.IndexByte(name[slash+1:], '/') < 0 {
			return false
		}
	case hubNames[1], hubNames[2]:
		return false
	}
	end := uint8(endEmpty)
	for i := range len(name) {
		if name[i] != '/' {
			end = grammar[end][classes[name[i]]]
		} else if end == endLetter {
			end = endEmpty
		} else {
			return false
		}
		if end == endNever {
			return false
		}
	}
	return end == endLetter
}

// Canonical returns the canonical form of a repository's name that begins with
// an upstream or registry: index.docker.io and registry-1.docker.io mean
// docker.io, whose one-component repositories get library/. Nothing else is
// changed: letter case and ports stay, and a name without a registry is not
// completed to one. False means that the name has no canonical form: a
// component is empty or malformed, a letter is in upper case, there is a tag or
// a digest. Canonical of a canonical name is that name.
func Canonical(name string) (string, bool) {
	if len(name) > maxName {
		return "", false
	}
	registry, repository, ok := strings.Cut(name, "/")
	if !ok {
		return "", false
	}
	for _, other := range hubNames {
		if registry == other {
			registry = hub
		}
	}
	if registry == hub && !strings.Contains(repository, "/") {
		repository = "library/" + repository
	}
	name = registry + "/" + repository
	return name, isCanonical(name)
}

// claim is a name that a signature claims, taken apart. The text comes from a
// payload that a key has signed, and is not trusted to be well formed.
type claim struct {
	repository string // canonical
	tag        string
	digest     string
}

// parseClaim takes apart repository[:tag][@digest]. A colon before the last
// slash belongs to a port. False means that the text names nothing.
func parseClaim(name string) (claim, bool) {
	const maxTag, maxDigest = 128, 128
	if len(name) > maxName+maxTag+maxDigest+2 {
		return claim{}, false
	}
	var c claim
	name, digest, hasDigest := strings.Cut(name, "@")
	if hasDigest {
		h, err := v1.NewHash(digest)
		if err != nil || h.String() != digest {
			return claim{}, false
		}
		c.digest = digest
	}
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name, c.tag = name[:colon], name[colon+1:]
		if len(c.tag) > maxTag || !isTag(c.tag) {
			return claim{}, false
		}
	}
	var ok bool
	c.repository, ok = Canonical(name)
	return c, ok
}

// isTag reports whether every byte of s may stand in a tag and the first may
// begin one; s is not too long.
func isTag(s string) bool {
	for i := range len(s) {
		b := s[i]
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '_':
		case (b == '.' || b == '-') && i > 0:
		default:
			return false
		}
	}
	return s != ""
}
