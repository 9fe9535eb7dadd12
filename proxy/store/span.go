package store

// span is the part of content that a reader hands out: from first up to, not
// including, end; to the content's end when end is negative.
type span struct{ first, end int64 }

// stop returns where the span ends in content of that size, -1 when neither is
// known.
func (s span) stop(total int64) int64 {
	if s.end < 0 || total >= 0 && total < s.end {
		return total
	}
	return s.end
}

// free returns up to where the span may be handed out when so many bytes of the
// content have come and its digest has not held yet.
func (s span) free(there, total int64) int64 {
	free := there
	if total < 0 {
		free -= holdBack // this may be the content's end
	}
	if stop := s.stop(total); stop >= 0 {
		free = min(free, stop-holdBack)
	}
	return free
}
