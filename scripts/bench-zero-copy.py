#!/usr/bin/env python3
"""Measures the CPU time of a seeder with zero-copy sends and with ordinary sends, in interleaved rounds, with the real programs.

usage (as root): scripts/bench-zero-copy.py [--bin DIR] [--size BYTES] [--rounds N] [--wire copies|takes] [--on auto|always] [--locks BYTES]

Two hosts, each a network namespace, connected by one veth pair. With `--wire copies` the pair is unchanged: the kernel copies
every packet that it delivers locally, and reports the copy. `--wire takes` imitates a network card: an XDP program at the
receiving end, which passes every packet, makes a kernel thread copy the packets into the receiver's pages. The sender's pages
are released without a copy, as after a card's DMA. Unlike with a card, packets are at most 9,000 bytes and never bundled.
"""
import argparse, ctypes, json, os, resource, shutil, socket, struct, subprocess, sys, tempfile

INSIDE = "SHOAL_ZERO_COPY_INSIDE"
SEEDER, LEECHER = "10.78.0.1", "10.78.0.2"


def attach(device):
    """Attaches the XDP program `r0 = XDP_PASS; exit`, with multi-buffer support, to a device until standard input closes."""
    bpf, libc = 321, ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(struct.pack("<BBhi", 0xB7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    load = struct.pack("<IIQQIIQII16sII", 6, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 1 << 5,
                       b"pass", 0, 37)
    program = libc.syscall(bpf, 5, ctypes.create_string_buffer(load, 144), 144)
    link = struct.pack("<IIII", max(program, 0), socket.if_nametoindex(device), 37, 1 << 2)
    if program < 0 or libc.syscall(bpf, 28, ctypes.create_string_buffer(link, 64), 64) < 0:
        sys.exit(f"XDP at {device}: {os.strerror(ctypes.get_errno())}")
    print("attached", flush=True)
    sys.stdin.read()


def run(*words, **more):
    return subprocess.run(words, check=True, stdin=subprocess.DEVNULL, **more)


class Hosts:
    """Both ends of the veth pair. The leecher's namespace ends with its holder process."""

    def __init__(self, takes):
        holder = ["unshare", "--net", "sh", "-c", "echo ready; read end"]
        self.holder = subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "ready\n"
        pid = str(self.holder.pid)
        self.enter = ["nsenter", "--target", pid, "--net"]
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", pid)
        run("ip", "addr", "add", SEEDER + "/24", "dev", "near")
        run(*self.enter, "ip", "link", "set", "lo", "up")
        run(*self.enter, "ip", "addr", "add", LEECHER + "/24", "dev", "far")
        if takes:
            run("ip", "link", "set", "near", "mtu", "9000")
            run(*self.enter, "ip", "link", "set", "far", "mtu", "9000")
            own = [sys.executable, os.path.abspath(__file__), "--attach", "far"]
            self.xdp = subprocess.Popen(self.enter + own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self.xdp.stdout.readline() == "attached\n"
        run("ip", "link", "set", "near", "up")
        run(*self.enter, "ip", "link", "set", "far", "up")
        if takes:
            threaded = "mount -t sysfs sys /sys && echo 1 > /sys/class/net/far/threaded"
            run(*self.enter, "unshare", "--mount", "sh", "-c", threaded)


def cpu_s(pid):
    """CPU time of all threads of a process so far, in seconds."""
    threads = os.listdir(f"/proc/{pid}/task")
    return sum(int(open(f"/proc/{pid}/task/{thread}/schedstat").read().split()[0]) for thread in threads) / 1e9


class Client:
    def __init__(self, args, place, name, enter=()):
        self.state = os.path.join(place, name)
        self.words = [*enter, os.path.join(args.bin, "client"), "--json", "--state", self.state,
                      "--trackers", os.path.join(place, "trackers")]

    def say(self, *words):
        return json.loads(run(*self.words, *words, stdout=subprocess.PIPE).stdout.splitlines()[-1])

    def serve(self, *options):
        self.node = subprocess.Popen([*self.words, *options, "serve"], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.node.stdout.readline().startswith('{"address"')


def measure(args, place):
    hosts = Hosts(args.wire == "takes")
    founding = os.path.join(place, "founding")
    open(founding, "w").write(SEEDER + " 0\n")
    words = [os.path.join(args.bin, "tracker"), founding, "1", "--data", os.path.join(place, "data")]
    tracker = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    address = tracker.stdout.readline().split()[-1]
    open(os.path.join(place, "trackers"), "w").write(address.replace(":", " ") + "\n")
    source = os.path.join(place, "file")
    with open(source, "wb") as file:
        for _ in range(args.size >> 20):
            file.write(os.urandom(1 << 20))
    seeders = {}
    for mode in ["off", args.on]:
        seeders[mode] = seeder = Client(args, place, "seeder-" + mode)
        seeder.serve("--listen", SEEDER, "--zero-copy", mode)
        seeder.say("create_user", "seeder-" + mode, "password")
        seeder.say("login", "seeder-" + mode, "password")
        seeder.say("create_group", mode)
        seeder.say("upload_file", mode, source)
    results = {mode: [] for mode in seeders}
    for number in range(args.rounds + 1):
        for mode in list(seeders) if number % 2 else list(seeders)[::-1]:
            leecher = Client(args, place, f"leecher-{mode}-{number}", hosts.enter)
            user = f"{mode}{number}"
            for said in [("create_user", user, "password"), ("login", user, "password"), ("join_group", mode)]:
                leecher.say(*said)
            seeder = seeders[mode]
            before, cpu = seeder.say("status")["zero_copy"], cpu_s(seeder.node.pid)
            into = os.path.join(place, "into")
            os.mkdir(into)
            figures = leecher.say("--listen", LEECHER, "download_file", mode, "file", into)["figures"]
            cpu, after = cpu_s(seeder.node.pid) - cpu, seeder.say("status")["zero_copy"]
            run("cmp", source, os.path.join(into, "file"))
            shutil.rmtree(into)
            shutil.rmtree(leecher.state)
            if number == 0:
                continue
            row = {
                "round": number, "zero_copy": mode, "wire": args.wire,
                "sender_cpu_s_per_gb": round(cpu / args.size * 1e9, 4),
                "gb_per_s": round(args.size / figures["proven_us"] / 1e3, 3),
                **{name: after[name] - before[name] for name in after},
            }
            results[mode].append(row)
            print(json.dumps(row), flush=True)
    median = lambda mode, name: sorted(row[name] for row in results[mode])[args.rounds // 2]
    ratios = sorted(b["sender_cpu_s_per_gb"] / a["sender_cpu_s_per_gb"] for a, b in zip(*results.values()))
    for mode in results:
        print(f"{mode}: sender {median(mode, 'sender_cpu_s_per_gb')} CPU s/GB, {median(mode, 'gb_per_s')} GB/s (medians)")
    print(f"sender's CPU, {args.on} : off, within rounds: {ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    for process in [*(seeder.node for seeder in seeders.values()), tracker, hosts.holder]:
        process.terminate()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="target/release")
    parser.add_argument("--size", type=int, default=1 << 30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wire", choices=["copies", "takes"], default="copies")
    parser.add_argument("--on", choices=["auto", "always"], default="auto")
    parser.add_argument("--locks", type=int, help="bytes that a seeder may lock, at most the hard limit; it uses half of them")
    parser.add_argument("--dir", help="folder for the files")
    parser.add_argument("--attach", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.attach:
        return attach(args.attach)
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        own = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv]
        os.execvp(own[0], own)
    if args.locks:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (args.locks, args.locks))
    args.bin = os.path.abspath(args.bin)
    with tempfile.TemporaryDirectory(prefix="shoal-zero-copy-", dir=args.dir) as place:
        measure(args, place)


if __name__ == "__main__":
    main()
