// Package e2e holds the tests of the whole: the vidimus binary between real
// clients and real registries, the image that it is shipped in, and the rules
// about who may import whom. It has no code of its own.
package e2e
