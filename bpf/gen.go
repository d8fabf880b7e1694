// Package bpf holds the programs that label and watch the processes of
// granted sessions in the kernel, and the Go that was generated from them.
//
// It loads nothing by itself: agent/watch does.
package bpf

//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -cc clang-16 -strip llvm-strip-16 -target bpfel -type kind -type did -type deed -type head -type process -type exec -type argv -type change -type task -type number -type gone -type ids -type ward -type place -type label -type session -type end -type sums Watch watch.bpf.c -- -idirafter /usr/include/x86_64-linux-gnu -O2 -g -Wall -Wextra -Werror
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -cc clang-16 -strip llvm-strip-16 -target bpfel -type alarm Lock lock.bpf.c -- -idirafter /usr/include/x86_64-linux-gnu -O2 -g -Wall -Wextra -Werror
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -cc clang-16 -strip llvm-strip-16 -target bpfel -type refusals Gate gate.bpf.c -- -idirafter /usr/include/x86_64-linux-gnu -O2 -g -Wall -Wextra -Werror
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -cc clang-16 -strip llvm-strip-16 -target bpfel -type refusals -type act -type mark Guard guard.bpf.c -- -idirafter /usr/include/x86_64-linux-gnu -O2 -g -Wall -Wextra -Werror
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -cc clang-16 -strip llvm-strip-16 -target bpfel After after.bpf.c -- -idirafter /usr/include/x86_64-linux-gnu -O2 -g -Wall -Wextra -Werror

// Layout is the version of what is in the pinned maps; LAYOUT in record.h.
const Layout = 5

// Oldest is the first layout that is taken over as it is: 5 added what is told
// of names and datagrams, which an agent from before it cannot read.
const Oldest = 4

// FromAlone is FROM_ALONE in record.h.
const FromAlone = 1 << 31
