package e2e_test

import (
	"maps"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// exception is why a requirement does not hold through the proxy. forced says that the
// upstream itself fails it.
type exception struct {
	forced bool
	why    string
}

// conformers are what the proxy stands before. A requirement may fail through the proxy
// only when it is listed, with the reason.
var conformers = []struct {
	name   string
	start  func(testing.TB) string
	listed map[string]exception
}{
	{"distribution, which has no referrers API", real.StartDistribution, withOurs(map[string]exception{
		schema1: {forced: true, why: "distribution takes no schema 1 any more, and neither does the proxy"},
	})},
	{"go-containerregistry, which has one", real.StartGGCR, withOurs(map[string]exception{
		"end-13: how far an upload is":                        {true, "it does not tell"},
		"end-14: an upload is given up":                       {true, "it cannot be"},
		"end-5: a piece out of order":                         {true, "it does not tell how far the upload is"},
		"end-6: the last piece comes with the PUT":            {true, "it gives no Location for a piece that has a range"},
		"end-11: a blob is mounted from another repository":   {true, "it begins an upload instead"},
		"end-7: an index with a subject":                      {true, "it answers without OCI-Subject, and does not list it"},
		"end-8b: the tags after a tag":                        {true, "it ignores last"},
		"end-8b: page after page by Link":                     {true, "it sends no Link"},
		"end-9: a manifest is deleted, and with it its tags":  {true, "its tags hold manifests of their own"},
		"end-9: what was deleted is pushed again":             {true, "its tags hold manifests of their own"},
		"end-12a: all referrers, as they describe themselves": {true, typeOfConfig},
		"end-12b: the referrers of one type":                  {true, typeOfConfig},
		"end-12a: a referrer that came before its subject":    {true, typeOfConfig},
		"end-12a: a referrer that was deleted":                {true, typeOfConfig},
	})},
	{"a registry that lists referrers as the specification has it", func(tb testing.TB) string {
		return lying.Start(tb).Host
	}, withOurs(map[string]exception{
		sha512Blob: {forced: true, why: onlySHA256},
	})},
}

const (
	schema1    = "end-7: a manifest of schema 1"
	sha512Blob = "end-6: a blob with SHA-512"

	onlySHA256   = "SHA-256 is the one algorithm that everything here is named by, and that cosign signs"
	typeOfConfig = "it says the type of the config for the artifactType, whatever the manifest says"
)

// withOurs is what the proxy itself does not do, before whatever registry, and more.
func withOurs(more map[string]exception) map[string]exception {
	all := map[string]exception{
		schema1:    {why: "a schema 1 manifest does not bind what is pulled to its signature, so that none is served, and none taken"},
		sha512Blob: {why: onlySHA256},
		"end-2: GET of a blob that no manifest references": {why: "a blob is served because of a manifest that is; who pushes sees it by HEAD"},
	}
	maps.Copy(all, more)
	return all
}
