package verifier

// Verifies reports whether signature is one by k over message, in a form that cosign
// writes: as over a payload.
func (k Key) Verifies(message, signature []byte) bool {
	return len(signature) <= MaxSignatureSize && k.verifies(newMessage(message), signature)
}
