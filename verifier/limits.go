package verifier

import "time"

// Limits on what a remote party may make the program read or do. They are
// constants so that there is one place to look: what lies inside a limit is
// evaluated, and only when that does not satisfy is the limit a denial.
const (
	// MaxManifestSize is how many bytes of a manifest are read.
	MaxManifestSize = 4 << 20
	// MaxPayloadSize is how many bytes of a payload, envelope or bundle are
	// read; one that declares more is refused before it is fetched.
	MaxPayloadSize = 1 << 20
	// MaxSignatureSize is how many bytes a detached signature may have. An
	// RSA-8192 signature has 1 KiB.
	MaxSignatureSize = 2 << 10
	// MaxKeySize is how many bytes the file of a public key may have.
	MaxKeySize = 64 << 10
	// MaxSignatures is how many signatures are tried for one subject.
	MaxSignatures = 64
	// MaxReferrers is how many referrers of one subject are opened.
	MaxReferrers = 64
	// MaxListSize is how many bytes of a list of referrers are read, its pages
	// together.
	MaxListSize = 8 << 20
	// MaxIndexDepth is how deep indexes may nest.
	MaxIndexDepth = 3
	// MaxChildren is how many manifests one index may list.
	MaxChildren = 1000
	// MaxErrorBody is how many bytes of an error's or a token's body are read.
	MaxErrorBody = 64 << 10

	// DecisionRequests, DecisionBytes and DecisionTime are what one decision
	// may spend upstream.
	DecisionRequests = 200
	DecisionBytes    = 64 << 20
	DecisionTime     = 20 * time.Second
	// MaxDecisions is how many decisions are made at once, and MaxDecisionsOfOne how
	// many of them with the evidence of one upstream.
	MaxDecisions      = 64
	MaxDecisionsOfOne = 48
)

const (
	// maxFetches is how many payloads of one source are fetched at once.
	maxFetches = 8
	// maxLayers is how many layers of a signature image are looked at, whatever
	// they are. A manifest has room for a million empty ones.
	maxLayers = 4096
	// maxKept is up to what size a payload is kept until the end of the call,
	// for another signature over the same bytes. Real ones have some 250 bytes.
	maxKept = 8 << 10
	// maxOpened is how many referrers are opened at once, and maxReferrer up to what
	// size one is read for what it has: a bundle's has 900 bytes. maxOpenedBytes is
	// after how many bytes of them no more are opened, whatever their lists said.
	maxOpened      = 4
	maxReferrer    = 1 << 20
	maxOpenedBytes = 8 << 20
	// patience is how long the fallback tag is not asked for while other sources are
	// at work, for what they find may suffice.
	patience = time.Second
	// maxListed is how many descriptors of a list of referrers are looked at.
	maxListed = 16 * MaxReferrers
	// maxNames is how many of a subject's names payloads are predicted for.
	maxNames = 64
)
