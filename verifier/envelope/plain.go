package envelope

// Plain is a payload without annotations about one manifest, to which only the
// reference is wanting. Whoever knows the manifest knows these bytes without
// having seen them.
type Plain struct{ before, after string }

// Plain returns the payloads of form f about the manifest of digest, as
// EncodePayload writes them to the byte: with null for annotations, as cosign
// does, and with {}. It returns none for an f that is no form.
func (f Form) Plain(digest string) []Plain {
	s, ok := f.spelling()
	if !ok {
		return nil
	}
	before := `{"` + s.critical + `":{"` + s.identity + `":{"` + DockerReference + `":"`
	after := `"},"` + s.image + `":{"` + s.digest + `":"` + digest + `"},"` + s.kind + `":"` + s.kindValue + `"},"` + s.optional + `":`
	return []Plain{{before, after + "null}"}, {before, after + "{}}"}}
}

// Size returns the length of p with reference, in bytes.
func (p Plain) Size(reference string) int64 {
	return int64(len(p.before) + len(reference) + len(p.after))
}

// Payload returns the bytes of p with reference, for which IsPlain holds.
func (p Plain) Payload(reference string) []byte {
	return []byte(p.before + reference + p.after)
}

// IsPlain reports whether reference consists of the characters that names, tags
// and digests have, which JSON writes as they are.
func IsPlain(reference string) bool {
	for i := range len(reference) {
		switch b := reference[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		case b == '.', b == '_', b == '-', b == '/', b == ':', b == '@':
		default:
			return false
		}
	}
	return true
}
