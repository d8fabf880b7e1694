#!/usr/bin/env bash
# generate.sh writes again what is generated: Go from the proto files, BPF
# objects with their Go from the C files, and the reference in the docs. What it
# writes is committed.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$(tools/build.sh):$PATH
export PATH

protoc --go_out=. --go_opt=module=curfew.internal \
	--go-grpc_out=. --go-grpc_opt=module=curfew.internal \
	wire/uplink/uplink.proto
protoc --go_out=. --go_opt=module=curfew.internal \
	--connect-go_out=. --connect-go_opt=module=curfew.internal,simple \
	wire/api/api.proto
go generate ./...
go -C tools run ./reference ..
