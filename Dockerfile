# Builds the one binary and puts it alone into an image: no shell, no C library.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /liverag ./cmd/liverag

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /liverag /liverag
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/liverag"]
# A container's loopback can't be reached from outside it, so it listens everywhere; publish the port where you mean it to be seen.
CMD ["up", "--data", "/data", "--listen", "0.0.0.0:8080", "--insecure_listen"]
