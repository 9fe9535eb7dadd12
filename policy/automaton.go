package policy

import "slices"

// The questions that lint and Within ask (does everything that this matches
// match that?) are answered exactly, by searching the product of the patterns'
// automata and that of canonical names for a name that tells the difference.
// The search is breadth first, so the name found is a shortest one, and ends at
// a bound.

// token is one step of a pattern's automaton over bytes.
type token uint8

const (
	tokenByte     token = iota // exactly this byte
	tokenStar                  // any bytes but '/', also none
	tokenDeep                  // "**/" before a component: between components
	tokenDeepIn                // the same, within a component that it stands for
	tokenTail                  // "**" at the end: its first byte
	tokenTailMore              // the same, later: everything fits from here on
)

// program is a pattern as an automaton: one state for each token and one, after
// the last, that accepts.
type program struct {
	tokens []token
	bytes  []byte // of the tokenByte at the same place
}

func (p pattern) compile() program {
	var g program
	emit := func(t token, b byte) {
		g.tokens = append(g.tokens, t)
		g.bytes = append(g.bytes, b)
	}
	last := len(p.blocks) - 1
	for i, block := range p.blocks {
		for j, c := range block {
			for k, part := range c.parts {
				if k > 0 {
					emit(tokenStar, 0)
				}
				for b := range len(part) {
					emit(tokenByte, part[b])
				}
			}
			if i < last || j < len(block)-1 {
				emit(tokenByte, '/')
			}
		}
		switch {
		case i == last:
		case i == last-1 && len(p.blocks[last]) == 0:
			emit(tokenTail, 0)
			emit(tokenTailMore, 0)
		default:
			emit(tokenDeep, 0)
			emit(tokenDeepIn, 0)
		}
	}
	return g
}

// enter adds state i, and those that it reaches without a byte, to set.
func (g program) enter(set []uint32, base uint32, i int) []uint32 {
	for {
		set = append(set, base+uint32(i))
		if i == len(g.tokens) {
			return set
		}
		switch g.tokens[i] {
		case tokenStar:
			i++
		case tokenDeep:
			i += 2
		default:
			return set
		}
	}
}

// step adds the states that state i reaches with byte b.
func (g program) step(set []uint32, base uint32, i int, b byte) []uint32 {
	if i == len(g.tokens) {
		return set
	}
	switch g.tokens[i] {
	case tokenByte:
		if g.bytes[i] == b {
			return g.enter(set, base, i+1)
		}
	case tokenStar:
		if b != '/' {
			return g.enter(set, base, i)
		}
	case tokenDeep:
		if b != '/' {
			return g.enter(set, base, i+1)
		}
	case tokenDeepIn:
		if b == '/' {
			return g.enter(set, base, i-1)
		}
		return g.enter(set, base, i)
	case tokenTail:
		return g.enter(set, base, i+1)
	case tokenTailMore:
		return g.enter(set, base, i)
	}
	return set
}

func (g program) accepts(i int) bool {
	return i == len(g.tokens) || g.tokens[i] == tokenTailMore
}

// possible reports whether any canonical name fits the pattern.
func (p pattern) possible() bool {
	steps := searchBound
	_, outcome := witness([]Match{{include: []pattern{p}}}, nil, &steps)
	return outcome != searchEmpty
}

// searchBound bounds one search, in steps of the patterns' automata: some ten
// milliseconds and megabytes.
const searchBound = 200_000

type searchOutcome int

const (
	searchUnknown searchOutcome = iota // the bound was hit
	searchFound
	searchEmpty // there is no such name
)

// witness looks for a canonical name that all of in match and none of out. It
// takes what it spends from steps and gives up when they are spent.
func witness(in, out []Match, steps *int) (string, searchOutcome) {
	s := newSearch(in, out)
	for at := 0; at < len(s.visits); at++ {
		v := s.visits[at]
		verdicts := s.judge(v)
		if verdicts.hopeless {
			continue
		}
		if verdicts.wanted && v.canon.complete() {
			return s.spell(at), searchFound
		}
		for _, b := range s.alphabet(v) {
			if *steps -= len(v.states); *steps < 0 {
				return "", searchUnknown
			}
			s.visit(at, b)
		}
	}
	return "", searchEmpty
}

// search is the product automaton of several matches, explored as it is needed.
type search struct {
	programs []program
	roles    []role   // of the program
	bases    []uint32 // of the program's states in the numbering of all
	owner    []int    // of a state: its program
	members  int      // matches, those of in first
	in       int

	visits []visit
	seen   map[string]struct{}
}

// role says whose pattern a program is.
type role struct {
	match   int // index among all matches
	exclude bool
}

// visit is one state of the product: what a name read so far leads to.
type visit struct {
	canon  canon
	states []uint32 // of all programs, sorted, distinct
	from   int      // index of the visit before, -1 at the start
	by     byte     // the byte that led here
}

func newSearch(in, out []Match) *search {
	s := &search{members: len(in) + len(out), in: len(in), seen: map[string]struct{}{}}
	add := func(p pattern, r role) {
		g := p.compile()
		s.bases = append(s.bases, uint32(len(s.owner)))
		for range len(g.tokens) + 1 {
			s.owner = append(s.owner, len(s.programs))
		}
		s.programs = append(s.programs, g)
		s.roles = append(s.roles, r)
	}
	for i, m := range slices.Concat(in, out) {
		for _, p := range m.include {
			add(p, role{match: i})
		}
		for _, p := range m.exclude {
			add(p, role{match: i, exclude: true})
		}
	}
	var start []uint32
	for i, g := range s.programs {
		start = g.enter(start, s.bases[i], 0)
	}
	s.visits = []visit{{states: start, from: -1}}
	return s
}

// visit goes on from a visit by one byte, unless that was done before.
func (s *search) visit(from int, b byte) {
	c, ok := s.visits[from].canon.step(b)
	if !ok {
		return
	}
	var next []uint32
	for _, state := range s.visits[from].states {
		i := s.owner[state]
		next = s.programs[i].step(next, s.bases[i], int(state-s.bases[i]), b)
	}
	slices.Sort(next)
	next = slices.Compact(next)
	key := make([]byte, 0, 5+4*len(next))
	key = c.appendKey(key)
	for _, state := range next {
		key = append(key, byte(state), byte(state>>8), byte(state>>16), byte(state>>24))
	}
	if _, done := s.seen[string(key)]; done {
		return
	}
	s.seen[string(key)] = struct{}{}
	s.visits = append(s.visits, visit{canon: c, states: next, from: from, by: b})
}

// verdicts are what a visit says of the question.
type verdicts struct {
	wanted   bool // all of in match here, and none of out
	hopeless bool // nothing that begins like this is wanted
}

// judge weighs a visit: for each match, whether it fits here, whether it still
// can, and whether it does whatever follows.
func (s *search) judge(v visit) verdicts {
	type standing struct{ fits, excluded, alive, aliveExclude, always, never bool }
	all := make([]standing, s.members)
	for _, state := range v.states {
		i := s.owner[state]
		g, m, at := s.programs[i], &all[s.roles[i].match], int(state-s.bases[i])
		settled := at < len(g.tokens) && g.tokens[at] == tokenTailMore
		if s.roles[i].exclude {
			m.aliveExclude = true
			m.excluded = m.excluded || g.accepts(at)
			m.never = m.never || settled
			continue
		}
		m.alive = true
		m.fits = m.fits || g.accepts(at)
		m.always = m.always || settled
	}
	result := verdicts{wanted: true}
	for i, m := range all {
		fits := m.fits && !m.excluded
		if i < s.in {
			result.wanted = result.wanted && fits
			result.hopeless = result.hopeless || !m.alive || m.never
		} else {
			result.wanted = result.wanted && !fits
			result.hopeless = result.hopeless || m.always && !m.aliveExclude
		}
	}
	return result
}

// alphabet returns the bytes worth going on with. Where the first match goes on
// with bytes that it names, these are all. Where it takes any, they are those
// that some automaton tells apart, and one for all the letters that none does.
func (s *search) alphabet(v visit) []byte {
	var first, all [128]bool
	wild := false
	for _, state := range v.states {
		i := s.owner[state]
		g, at := s.programs[i], int(state-s.bases[i])
		leads := s.roles[i].match == 0 && !s.roles[i].exclude
		switch {
		case at == len(g.tokens):
		case g.tokens[at] == tokenByte:
			all[g.bytes[at]] = true
			first[g.bytes[at]] = first[g.bytes[at]] || leads
		default:
			wild = wild || leads
		}
	}
	if !wild {
		return bytesOf(first)
	}
	for _, b := range v.canon.hubBytes() {
		all[b] = true
	}
	for _, b := range []byte("/-._:") {
		all[b] = true
	}
	const letters = "xyzabcdefghijklmnopqrstuvw0123456789"
	for i := range len(letters) {
		if !all[letters[i]] {
			return append([]byte{letters[i]}, bytesOf(all)...)
		}
	}
	return bytesOf(all)
}

func bytesOf(set [128]bool) []byte {
	var bytes []byte
	for b, ok := range set {
		if ok {
			bytes = append(bytes, byte(b))
		}
	}
	return bytes
}

// spell returns the name that leads to a visit.
func (s *search) spell(at int) string {
	var name []byte
	for ; s.visits[at].from >= 0; at = s.visits[at].from {
		name = append(name, s.visits[at].by)
	}
	slices.Reverse(name)
	return string(name)
}
