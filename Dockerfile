# Vidimus as an image: the binary, the certificates of public authorities, and
# nothing else. It needs no root, no capability and no writable file system
# besides cache.directory, when the configuration names one:
#
#   docker build -t vidimus .
#   docker run --read-only --cap-drop=ALL -p 127.0.0.1:5080:5080 \
#     -v "$PWD/config:/etc/vidimus:ro" -v vidimus:/var/lib/vidimus vidimus
#
# In a container http.addr must be 0.0.0.0:5080, or nobody outside reaches it.
# The configuration is mounted as a directory: a file that is mounted by itself stays
# the old one when an editor puts a new one in its place. User 65532 must be able to
# read what is in it, and to write cache.directory (/var/lib/vidimus, of a volume).

FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags=-s -o /out/vidimus ./cmd/vidimus
RUN mkdir /out/cache

FROM scratch
LABEL org.opencontainers.image.title="Vidimus" \
      org.opencontainers.image.description="A registry proxy that serves only what is signed as your policy says" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/vidimus /vidimus
# A new volume takes over whom this belongs to.
COPY --from=build --chown=65532:65532 /out/cache/ /var/lib/vidimus/
USER 65532:65532
# The registry API, and /healthz, /readyz and /metrics.
EXPOSE 5080 5081
ENTRYPOINT ["/vidimus"]
CMD ["serve"]
