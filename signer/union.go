package signer

import (
	"fmt"
	"slices"
)

// Union returns the manifest of a signature image with all the layers of two, of one
// that somebody would put and of the one that is held where it would be put, and its
// config, nil when that is the one of pushed or of held. When pushed begins with the
// layers of held it is returned as it is, and when held has all of pushed, held is.
// Otherwise the layers that are held come first, in their order, and everything but the
// layers is as it is held: verifiers try the first ones, and nobody who may add a
// signature is to push those of others out of their reach.
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
	case added.beginsWith(old):
		return pushed, nil, nil
	}
	old.layers = slices.Concat(old.layers, old.missing(added))
	return old.encode()
}

// beginsWith reports whether the layers of other are the first ones.
func (img signatureImage) beginsWith(other signatureImage) bool {
	return len(img.layers) >= len(other.layers) && slices.EqualFunc(img.layers[:len(other.layers)], other.layers, signatureLayer.same)
}

// missing returns the layers of other that the image has not, however they are spelled
// there.
func (img signatureImage) missing(other signatureImage) []signatureLayer {
	type likeness struct{ digest, mediaType, signature string } // which layers that are the same share
	of := func(l signatureLayer) likeness {
		return likeness{l.digest, l.mediaType, l.annotations[signatureAnnotation]}
	}
	alike := make(map[likeness][]signatureLayer, len(img.layers))
	for _, layer := range img.layers {
		alike[of(layer)] = append(alike[of(layer)], layer)
	}
	var missing []signatureLayer
	for _, layer := range other.layers {
		if !slices.ContainsFunc(alike[of(layer)], layer.same) {
			missing = append(missing, layer)
		}
	}
	return missing
}
