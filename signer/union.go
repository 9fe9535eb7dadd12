package signer

import (
	"fmt"
	"slices"
)

// Union returns the manifest of a signature image with all the layers of two, of one
// that somebody would put and of the one that is held where it would be put, and its
// config, nil when that is the one of pushed or of held. When pushed has all layers of
// held it is returned as it is, and when held has all of pushed, held is. Otherwise
// the layers that are held come first, in their order, and everything but the layers
// is as it is held.
//
// An error says that one of them is not a signature image, or that the union would be
// too large.
func Union(pushed, held []byte) (manifest, config []byte, err error) {
	added, err := parseSignatureImage(pushed)
	if err != nil {
		return nil, nil, fmt.Errorf("what is pushed is not a signature image: %w", err)
	}
	old, err := parseSignatureImage(held)
	if err != nil {
		return nil, nil, fmt.Errorf("what is held is not a signature image: %w", err)
	}
	switch {
	case old.missing(added) == nil:
		return held, nil, nil
	case added.missing(old) == nil:
		return pushed, nil, nil
	}
	old.layers = append(old.layers[:len(old.layers):len(old.layers)], old.missing(added)...)
	return old.encode()
}

// missing returns the layers of other that the image has not.
func (img signatureImage) missing(other signatureImage) []signatureLayer {
	var missing []signatureLayer
	for _, layer := range other.layers {
		if !img.has(layer) {
			missing = append(missing, layer)
		}
	}
	return missing
}

// has reports whether one of the layers is this one, however it is spelled.
func (img signatureImage) has(layer signatureLayer) bool {
	return slices.ContainsFunc(img.layers, layer.same)
}
