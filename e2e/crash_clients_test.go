package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
)

// answerTime bounds one answer: a server that hangs is a failure.
const answerTime = 2 * time.Minute

// crashClients pull all the time, and check every answer that they get whole.
type crashClients struct {
	content *crashContent
	up      *lying.Registry
	addr    string // of the proxy
	http    *http.Client

	// serving is held by each pull. Who stops the proxy takes it for himself until
	// there is another.
	serving sync.RWMutex
	// dying is set before the proxy is killed: from then on a pull may break off.
	dying    atomic.Bool
	happened func(moment)

	mu     sync.Mutex
	faults []error
	whole  map[string]int // answers by what was asked for
	broken int            // pulls that a kill ended
}

// run pulls until stop is closed.
func (c *crashClients) run(random *rand.Rand, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		c.serving.RLock()
		c.pull(random)
		c.serving.RUnlock()
	}
}

// pull does one thing that a client does, and notes what was wrong.
func (c *crashClients) pull(random *rand.Rand) {
	image := random.IntN(len(c.content.images))
	content := c.content.images[image]
	digest := content.Digest()
	var err error
	switch random.IntN(12) {
	case 0, 1:
		err = c.pullImage(random, signedImages, imageTag(image), content)
	case 2, 3:
		err = c.pullImage(random, signedImages, digest.String(), content)
	case 4:
		err = c.pullMoving(random)
	case 5, 6:
		err = c.pullIndex(random)
	case 7, 8:
		err = c.pullParts(random, content)
	case 9:
		err = c.askWithoutContent(image)
	case 10:
		err = c.pullUnsigned(random)
	case 11:
		c.content.move(c.up, image)
	}
	c.note(err)
}

// note keeps a fault, unless it may come of the kill.
func (c *crashClients) note(err error) {
	if err == nil {
		return
	}
	dying := c.dying.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := errors.AsType[*wrongAnswer](err); !ok && dying {
		c.broken++
		return
	}
	c.faults = append(c.faults, err)
}

// wrongAnswer is a fault whatever happens to the server.
type wrongAnswer struct{ what string }

func (e *wrongAnswer) Error() string { return e.what }

func wrong(format string, args ...any) error { return &wrongAnswer{fmt.Sprintf(format, args...)} }

// takeFaults returns the faults that have been noted since it was called last.
func (c *crashClients) takeFaults() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	faults := c.faults
	c.faults = nil
	return faults
}

// answer is an answer that came whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask returns an answer, or an error when it does not come whole.
func (c *crashClients) ask(method, path string, headers ...string) (answer, error) {
	req, err := http.NewRequest(method, "http://"+c.addr+"/v2/docker.io/"+path, nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: after %d bytes: %w", method, path, len(body), err)
	}
	c.mu.Lock()
	c.whole[fmt.Sprint(method, " ", resp.StatusCode)]++
	c.mu.Unlock()
	c.happened(answered)
	return answer{resp.StatusCode, resp.Header, body}, nil
}

// want is ask for an answer of one status, which the server owes unless it is
// being killed.
func (c *crashClients) want(status int, method, path string, headers ...string) (answer, error) {
	a, err := c.ask(method, path, headers...)
	if err == nil && a.status != status {
		err = fmt.Errorf("%s %s %q: status %d, want %d: %.300s", method, path, headers, a.status, status, a.body)
	}
	return a, err
}

// manifest gets a manifest and checks that it is content's.
func (c *crashClients) manifest(repository, reference string, content lying.Content) error {
	path := repository + "/manifests/" + reference
	a, err := c.want(http.StatusOK, http.MethodGet, path)
	if err != nil {
		return err
	}
	digest := content.Digest().String()
	if !bytes.Equal(a.body, content.Body) || a.header.Get("Docker-Content-Digest") != digest || a.header.Get("Content-Type") != content.MediaType {
		return wrong("GET %s: %d bytes of %s as %s, %s; want %s", path, len(a.body), lying.Digest(a.body), a.header.Get("Docker-Content-Digest"), a.header.Get("Content-Type"), digest)
	}
	return nil
}

// blob gets a blob and checks it.
func (c *crashClients) blob(repository string, data []byte) error {
	digest := lying.Digest(data)
	path := repository + "/blobs/" + digest.String()
	a, err := c.want(http.StatusOK, http.MethodGet, path)
	if err == nil && !bytes.Equal(a.body, data) {
		err = wrong("GET %s: %d bytes of %s; want %d", path, len(a.body), lying.Digest(a.body), len(data))
	}
	return err
}

// pullImage gets a manifest and then its blobs, in any order.
func (c *crashClients) pullImage(random *rand.Rand, repository, reference string, content lying.Content) error {
	err := c.manifest(repository, reference, content)
	for _, i := range random.Perm(len(content.Blobs)) {
		if err != nil {
			return err
		}
		err = c.blob(repository, content.Blobs[i])
	}
	return err
}

// pullMoving gets the image that a tag names that may name another at any time.
func (c *crashClients) pullMoving(random *rand.Rand) error {
	path := signedImages + "/manifests/" + movingTag
	a, err := c.want(http.StatusOK, http.MethodGet, path)
	if err != nil {
		return err
	}
	digest := lying.Digest(a.body)
	if a.header.Get("Docker-Content-Digest") != digest.String() || !c.content.named(digest) {
		return wrong("GET %s: %s as %s, which it never named", path, digest, a.header.Get("Docker-Content-Digest"))
	}
	return c.pullImage(random, signedImages, digest.String(), c.content.manifests[digest])
}

// pullIndex gets an index, one of its children, and that one's blobs.
func (c *crashClients) pullIndex(random *rand.Rand) error {
	index := c.content.index
	reference := "v1"
	if random.IntN(2) == 0 {
		reference = index.Digest().String()
	}
	if err := c.manifest(signedIndex, reference, index); err != nil {
		return err
	}
	child := index.Children[random.IntN(len(index.Children))]
	return c.pullImage(random, signedIndex, child.Digest().String(), child)
}

// pullParts gets ranges of blobs that may be held, arriving, or neither.
func (c *crashClients) pullParts(random *rand.Rand, content lying.Content) error {
	if err := c.manifest(signedImages, content.Digest().String(), content); err != nil {
		return err
	}
	for range 4 {
		data := content.Blobs[random.IntN(len(content.Blobs))]
		if len(data) == 0 {
			continue
		}
		first := random.IntN(len(data))
		end := first + 1 + random.IntN(len(data)-first)
		path := signedImages + "/blobs/" + lying.Digest(data).String()
		a, err := c.want(http.StatusPartialContent, http.MethodGet, path, "Range", fmt.Sprintf("bytes=%d-%d", first, end-1))
		if err != nil {
			return err
		}
		if tells := fmt.Sprintf("bytes %d-%d/%d", first, end-1, len(data)); a.header.Get("Content-Range") != tells || !bytes.Equal(a.body, data[first:end]) {
			return wrong("GET %s: %d bytes as %q, want %q", path, len(a.body), a.header.Get("Content-Range"), tells)
		}
	}
	return nil
}

// askWithoutContent asks with HEAD, and on conditions.
func (c *crashClients) askWithoutContent(image int) error {
	content := c.content.images[image]
	digest := content.Digest()
	tells := func(path string, a answer, digest v1.Hash, size int) error {
		if a.header.Get("Docker-Content-Digest") != digest.String() || a.header.Get("Content-Length") != strconv.Itoa(size) || len(a.body) != 0 {
			return wrong("HEAD %s tells of %q, %q bytes, and sends %d", path, a.header.Get("Docker-Content-Digest"), a.header.Get("Content-Length"), len(a.body))
		}
		return nil
	}
	for _, reference := range []string{imageTag(image), digest.String()} {
		path := signedImages + "/manifests/" + reference
		a, err := c.want(http.StatusOK, http.MethodHead, path)
		if err == nil {
			err = tells(path, a, digest, len(content.Body))
		}
		if err != nil {
			return err
		}
		if _, err := c.want(http.StatusNotModified, http.MethodGet, path, "If-None-Match", strconv.Quote(digest.String())); err != nil {
			return err
		}
	}
	for _, data := range content.Blobs {
		path := signedImages + "/blobs/" + lying.Digest(data).String()
		a, err := c.want(http.StatusOK, http.MethodHead, path)
		if err == nil {
			err = tells(path, a, lying.Digest(data), len(data))
		}
		if err != nil {
			return err
		}
	}
	path := signedImages + "/manifests/" + movingTag
	a, err := c.ask(http.MethodGet, path, "If-None-Match", strconv.Quote(digest.String()))
	switch {
	case err != nil:
		return err
	case a.status == http.StatusNotModified && !c.content.named(digest):
		return wrong("GET %s: not modified since %s, which it never named", path, digest)
	case a.status == http.StatusOK && !c.content.named(lying.Digest(a.body)):
		return wrong("GET %s: %s, which it never named", path, lying.Digest(a.body))
	case a.status != http.StatusNotModified && a.status != http.StatusOK:
		return fmt.Errorf("GET %s: status %d: %.300s", path, a.status, a.body)
	}
	return nil
}

// pullUnsigned asks in some way for what nobody signed. Whatever state the server
// is in, it gives none of it away.
func (c *crashClients) pullUnsigned(random *rand.Rand) error {
	digest := c.content.unsigned.Digest().String()
	paths := []string{
		unsignedImages + "/manifests/v1",
		unsignedImages + "/manifests/" + digest,
		signedImages + "/manifests/" + digest,
	}
	for _, blob := range c.content.secret {
		paths = append(paths,
			unsignedImages+"/blobs/"+lying.Digest(blob).String(),
			signedImages+"/blobs/"+lying.Digest(blob).String())
	}
	headers := [][]string{nil, {"If-None-Match", "*"}, {"Range", "bytes=0-9"}}[random.IntN(3)]
	for _, i := range random.Perm(len(paths)) {
		method := []string{http.MethodGet, http.MethodHead}[random.IntN(2)]
		a, err := c.ask(method, paths[i], headers...)
		if err != nil {
			return err
		}
		if a.status != http.StatusForbidden && a.status != http.StatusNotFound {
			return wrong("%s %s %q: status %d", method, paths[i], headers, a.status)
		}
	}
	return nil
}
