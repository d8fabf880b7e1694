package evade

// evasion is a way to run something unseen, or under another name. Try is run
// as root in a granted session's sudo. FILE is a file that is made only by
// what is to be hidden: it is there when the way came about. Seen is what an
// entry of the session looks like (see [Entry.line]) if it says what was run;
// handed, if it says only by whom or what it was done. Where neither is given
// the plain program is meant, and an entry that says "handed over".
type evasion struct{ name, try, seen, handed string }

const plain = `^exec /usr/bin/touch .* "FILE"`

var evasions = []evasion{
	{name: "nothing special", try: `touch FILE`},
	{name: "cron", try: `echo '* * * * * root touch FILE' >/etc/cron.d/evade`, handed: `^open .*object=/etc/cron.d/evade .*handed over to cron`},
	{name: "a crontab", try: `echo '* * * * * touch FILE' | crontab -`, handed: `^exec /usr/bin/crontab .*handed over to cron`},
	{name: "a copy under another name", try: `cp /usr/bin/touch /run/evade/sshd; /run/evade/sshd FILE`, seen: `^exec /run/evade/sshd .*"FILE"`},
	{name: "a hard link", try: `cp /usr/bin/touch /run/evade/tool; ln /run/evade/tool /run/evade/ls; /run/evade/ls FILE`, seen: `^exec /run/evade/ls .*"FILE".* links=2`},
	{name: "a symbolic link", try: `ln -s /usr/bin/touch /run/evade/true; /run/evade/true FILE`, seen: plain + `.*started as /run/evade/true`},
	{name: "a relative path", try: `cd /usr/lib/lab; ../../bin/touch FILE`},
	{name: "another argv[0]", try: `(exec -a '[kworker/0:1]' touch FILE)`, seen: `^exec /usr/bin/touch "\[kworker/0:1\]" "FILE"`},
	{name: "no argument at all", try: `/usr/lib/lab/hide nothing FILE`, seen: `^exec /usr/lib/lab/hide "" `},
	{name: "escape characters in an argument", try: `touch FILE $'/run/evade/x\e[2K\e]0;y\a\r'`, seen: `^exec /usr/bin/touch .*"FILE" "/run/evade/x\\x1b`},
	{name: "arguments of over a megabyte", try: `/usr/lib/lab/hide length FILE`},
	{name: "a name in ps that is another's", try: `/usr/lib/lab/hide name FILE`, seen: `^exec /usr/lib/lab/hide .*"name" "FILE"`},
	{name: "a mount over a program", try: `unshare -m sh -c 'mount --bind /usr/bin/touch /usr/bin/true; /usr/bin/true FILE'`, seen: `^exec /usr/bin/true .*"FILE" TOUCH `},
	{name: "a mount of a program elsewhere", try: `: >/run/evade/quiet; mount --bind /usr/bin/touch /run/evade/quiet; /run/evade/quiet FILE; umount /run/evade/quiet`, seen: `^exec /run/evade/quiet .*"FILE" TOUCH `},
	{name: "chroot", try: `mkdir -p /run/evade/jail/usr/bin /run/evade/jail/run/evade; cp /usr/lib/lab/hide /run/evade/jail/usr/bin/ls; mount --bind /run/evade /run/evade/jail/run/evade
chroot /run/evade/jail /usr/bin/ls make FILE; umount /run/evade/jail/run/evade`, seen: `^exec /run/evade/jail/usr/bin/ls .*"make" "FILE"`},
	{name: "namespaces of her own", try: `unshare -Urmpf --mount-proc touch FILE`},
	{name: "the first process's namespaces", try: `nsenter -t 1 -a touch FILE`},
	{name: "another control group", try: `sh -c 'for c in $(find /sys/fs/cgroup -name cgroup.procs -path "*init.scope*"); do echo $$ >$c; done; exec touch FILE'`},
	{name: "the loader by hand", try: `/lib64/ld-linux-x86-64.so.2 /usr/bin/touch FILE`, seen: `^exec /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 .*"/usr/bin/touch" "FILE"`},
	{name: "LD_PRELOAD", try: `cp /usr/lib/lab/late.so FILE.so; LD_PRELOAD=FILE.so /usr/bin/true`, seen: `^exec /usr/bin/true .*env=.*LD_PRELOAD=FILE.so`},
	{name: "a script whose interpreter it is", try: `printf '#!/usr/bin/touch FILE\n' >/run/evade/readme; chmod 755 /run/evade/readme; /run/evade/readme`, seen: plain + `.*script=/run/evade/readme`},
	{name: "binfmt_misc", try: `printf 'CURF' >/run/evade/picture; chmod 755 /run/evade/picture
unshare -Urm sh -c 'mount -t binfmt_misc b /mnt; echo ":c:M::CURF::/usr/bin/touch:" >/mnt/register; /run/evade/picture FILE'`, seen: plain + `.*script=/run/evade/picture`},
	{name: "a program of many names", try: `ln -s /usr/lib/lab/hide /run/evade/dir; mkdir /run/evade/box; ln -s /usr/lib/lab/hide /run/evade/box/true; /run/evade/box/true FILE`, seen: `^exec /usr/lib/lab/hide .*/true" "FILE"`},
	{name: "/proc/self/exe", try: `/usr/lib/lab/hide self FILE`, seen: `^exec /usr/lib/lab/hide "sshd: root" "make" "FILE"`},
	{name: "execveat of a descriptor", try: `/usr/lib/lab/hide fd FILE`, seen: `^exec /usr/bin/touch "ls" "FILE" TOUCH `},
	{name: "memfd", try: `/usr/lib/lab/hide memfd FILE`, seen: `^exec /memfd:ls "ls" "FILE".* links=0`},
	{name: "a deleted file", try: `/usr/lib/lab/hide deleted FILE`, seen: `^exec \S+ "ls" "FILE".* links=0`},
	{name: "O_TMPFILE", try: `/usr/lib/lab/hide nameless FILE`, seen: `^exec \S+ "ls" "FILE".* links=0`},
	{name: "exec by a thread", try: `/usr/lib/lab/hide thread FILE`},
	{name: "vfork", try: `/usr/lib/lab/hide vfork FILE`},
	{name: "a child that shares memory, files and handlers", try: `/usr/lib/lab/hide sharing FILE`},
	{name: "a child of another parent, with a chosen number", try: `/usr/lib/lab/hide clone FILE`},
	{name: "int 0x80", try: `/usr/lib/lab/hide int80 FILE`},
	{name: "a thread that changes the argument meanwhile", try: `/usr/lib/lab/hide race 40 /run/evade && touch FILE`},
	{name: "a thread that turns the link meanwhile", try: `/usr/lib/lab/hide turn 40 /run/evade && touch FILE`},
	{name: "double fork and setsid", try: `(setsid sh -c 'setsid touch FILE & exit' &)`},
	{name: "tmux of her own", try: `tmux -L mine new -d 'touch FILE'`},
	{name: "a terminal of its own", try: `script -qc 'touch FILE' /dev/null`},
	{name: "su", try: `su -s /bin/sh nobody -c 'touch FILE'`},
	{name: "sudo within sudo", try: `sudo -n touch FILE`},
	{name: "exec by python", try: `python3 -c 'import os; os.execv("/usr/bin/touch", ["ls", "FILE"])'`, seen: `^exec /usr/bin/touch "ls" "FILE"`},
	{name: "code in an argument", try: `python3 -c 'open("FILE", "w")'`, seen: `^exec /usr/bin/python3\S* .*open\(\\"FILE\\"`},
	{name: "systemd-run --scope", try: `systemd-run -q --scope touch FILE`},
	{name: "systemd-run", try: `systemd-run -q touch FILE`},
	{name: "a copy of systemd-run", try: `cp /usr/bin/systemd-run /run/evade/cat; /run/evade/cat -q touch FILE`},
	{name: "systemd-run --user", try: `runuser -u NAME -- env XDG_RUNTIME_DIR=/run/user/$(id -u NAME) systemd-run -q --user touch FILE`},
	{name: "a unit", try: `printf '[Service]\nExecStart=/usr/bin/touch FILE\n' >/run/systemd/system/evade.service; systemctl daemon-reload; systemctl start evade`, handed: `^exec /usr/bin/systemctl .*"start" "evade".*handed over to systemd`},
	{name: "a call by D-Bus", try: `busctl -q call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager StartTransientUnit 'ssa(sv)a(sa(sv))' evade-bus.service fail 1 ExecStart 'a(sasb)' 1 /usr/bin/touch 2 touch FILE false 0`},
	{name: "at", try: `echo 'touch FILE' | at now 2>/dev/null`, handed: `^exec /usr/bin/at .*handed over to at`},
	{name: "tmux of somebody else", try: `tmux new-window -d 'touch FILE'`},
	{name: "ssh to the host itself", try: `ssh-keygen -q -N '' -t ed25519 -f /run/evade/key; mkdir -p /root/.ssh; cp /run/evade/key.pub /root/.ssh/authorized_keys
ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -i /run/evade/key root@127.0.0.1 touch FILE`},
	{name: "a process that she traces", try: `/usr/lib/lab/hide inject $(pgrep -f 'hide pause') FILE`, handed: `^act .*ptrace: traces process`},
	{name: "another's memory, by a call", try: `/usr/lib/lab/hide poke $(cat /run/evade/obey) 'touch FILE'; until [ -e FILE ]; do sleep 0.05; done`, handed: `^act .*wrote to the memory of process`},
	{name: "another's memory, by its file", try: `/usr/lib/lab/hide mem $(cat /run/evade/obey) 'touch FILE'`, handed: `^open .*object=/proc/[0-9]+/mem`},
	{name: "io_uring", try: `/usr/lib/lab/hide ring FILE`, handed: `^act .*io_uring: asked .*to open a file`},
	{name: "a chain of interpreters", try: `printf '#!/usr/bin/touch FILE\n' >/run/evade/second; printf '#!/run/evade/second\n' >/run/evade/first; chmod 755 /run/evade/first /run/evade/second; /run/evade/first`, seen: plain + ` "/run/evade/second" "/run/evade/first"`},
	{name: "a script without a name", try: `/usr/lib/lab/hide script FILE`, seen: plain + ` "/dev/fd/[0-9]+"`},
	{name: "a name that is no text", try: `cp /usr/bin/touch $'/run/evade/\xff\xfe'; $'/run/evade/\xff\xfe' FILE`, seen: `^exec /run/evade/\S+ .*"FILE"`},
	{name: "a program that lies very deep", try: `cd /run/evade; for i in {1..30}; do mkdir $(printf 'd%.0s' {1..200}); cd $(printf 'd%.0s' {1..200}); done; cp /usr/bin/touch tool; ./tool FILE; cd /`, seen: `^exec \S*/d{200}/tool "./tool" "FILE"`},
	{name: "a layer over a program", try: `mkdir /run/evade/upper /run/evade/work /run/evade/merged; cp /usr/bin/touch /run/evade/upper/true
unshare -m sh -c 'mount -t overlay -o lowerdir=/usr/bin,upperdir=/run/evade/upper,workdir=/run/evade/work o /run/evade/merged && /run/evade/merged/true FILE'`, seen: `^exec /run/evade/merged/true .*"FILE"`},
	{name: "a child that she traces", try: `/usr/lib/lab/hide traced FILE`},
	{name: "a connection by fast open", try: `/usr/lib/lab/hide fastopen FILE`, handed: `^connect .*object=tcp://127.0.0.1:6301 `},
	{name: "a connection by io_uring", try: `/usr/lib/lab/hide ringconnect FILE`, handed: `^act .*io_uring: asked for a connection`},
	{name: "a descriptor of another process", try: `/usr/lib/lab/hide take $(pgrep -f 'hide obey') FILE`, handed: `^act .*took a descriptor of process [0-9]+: /run/evade,`},
	{name: "a raw socket", try: `/usr/lib/lab/hide raw FILE`, handed: `^act .*raw socket: made one of protocol 253`},
	{name: "a datagram to a file's name", try: `/usr/lib/lab/hide box FILE`},
	{name: "a word to somebody who listens", try: `echo 'touch FILE' >/run/evade/ear`},
	{name: "a shell's own command", try: `: >FILE`},
	{name: "code that an interpreter reads", try: `echo 'open("FILE", "w")' | python3`},
	{name: "code that is jumped to", try: `/usr/lib/lab/hide jump FILE`},
}

// accomplices are processes of nobody's session, that others may use.
const accomplices = `mkdir -m 1777 -p /run/evade; mkfifo -m 666 /run/evade/ear
setsid sh -c 'while :; do read c </run/evade/ear && eval "$c"; done' >/dev/null 2>&1 </dev/null &
setsid /usr/lib/lab/hide obey /run/evade/obey >/dev/null 2>&1 </dev/null 9</run/evade &
setsid /usr/lib/lab/hide pause x >/dev/null 2>&1 </dev/null &
setsid /usr/lib/lab/hide hear x >/dev/null 2>&1 </dev/null &
tmux new -d 'sleep 6300'
until grep -q . /run/evade/obey; do :; done`

const dismissed = `pkill -f '^sleep 6300'; pkill -x hide; pkill -f '[/]run/evade/ear'; rm -f /etc/cron.d/evade /run/systemd/system/evade.service /root/.ssh/authorized_keys; crontab -r; systemctl daemon-reload; rm -rf /run/evade; true`
