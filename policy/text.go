package policy

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes text from evidence, errors or requests fit to stand in a line for
// a person: what is not printable (control characters, line breaks, invisible
// and direction-changing ones, broken UTF-8) is escaped, and no more than limit
// characters remain, the last an ellipsis when some were cut off.
func clean(text string, limit int) string {
	var b strings.Builder
	count := 0
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		piece := text[i : i+size]
		switch {
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, text[i])
		case !unicode.IsPrint(r) && r > 0xffff:
			piece = fmt.Sprintf(`\U%08x`, r)
		case !unicode.IsPrint(r):
			piece = fmt.Sprintf(`\u%04x`, r)
		}
		width := utf8.RuneCountInString(piece)
		more := i+size < len(text)
		if count+width > limit || more && count+width == limit {
			b.WriteString("…")
			break
		}
		b.WriteString(piece)
		count += width
		i += size
	}
	return b.String()
}

// oneLine makes text that a person wrote into the configuration one line: every
// run of white space becomes a space. The rest is as in clean.
func oneLine(text string, limit int) string {
	return clean(strings.Join(strings.Fields(text), " "), limit)
}

// list joins names for a person, at most a handful of them.
func list(names []string) string {
	const most = 8
	shown := make([]string, 0, most)
	for _, name := range names[:min(len(names), most)] {
		shown = append(shown, clean(name, 64))
	}
	text := strings.Join(shown, ", ")
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return text
}
