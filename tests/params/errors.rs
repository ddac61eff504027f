//! Invalid command lines: each message names the invalid word and the remedy.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sockmux_uring::cli::error::Failure;
use sockmux_uring::cli::files::Files;
use sockmux_uring::cli::invocation::{self, Command, Invocation};
use sockmux_uring::cli::show;

/// One file with this text, under any name.
struct OneFile<'t>(&'t str);

impl Files for OneFile<'_> {
    fn read(&self, _path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        Ok(self.0.bytes().take(bytes_max as usize).collect())
    }
    fn identity(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

fn invoke<S: AsRef<str>>(args: &[S], file: &str) -> Result<Invocation, Failure> {
    let args = args.iter().map(|arg| OsString::from(arg.as_ref()));
    let args = std::iter::once(OsString::from("sockmux-uring")).chain(args);
    let mut lookup = |_: &str| Err(io::Error::other("no such name"));
    invocation::parse(args, &OneFile(file), &mut lookup)
}

fn message(line: &str) -> String {
    let args: Vec<&str> = line.split_whitespace().collect();
    match invoke(&args, "") {
        Ok(invocation) => panic!("{line} was taken: {:?}", invocation.command),
        Err(failure) => failure.message().to_owned(),
    }
}

/// `(command line, the bad word as named, the remedy)`.
#[rustfmt::skip]
const WRONG: &[(&str, &str, &str)] = &[
    // missing words and contradictions
    ("", "nothing to do", "sockmux-uring demo"),
    ("-P9000", "-P9000: nothing would ever flow", "add PORT="),
    ("SERVER=sockmux", "SERVER=sockmux: nothing would ever flow", "DEST=host:port"),
    ("SERVER=sockmux://h:1", "SERVER=sockmux://h:1: nothing would ever flow", "add PORT="),
    ("PORT=1", "no persistent connection", "add -P[host]:port"),
    ("DEST=h:1", "no persistent connection", "SERVER=sockmux://host:port"),
    ("SERVER=sockmux PORT=1", "SERVER=sockmux: there is no address to accept", "add -P[host]:port"),
    ("-P9000 SERVER=sockmux://h:1 PORT=1", "SERVER=sockmux://h:1: the persistent connection is also accepted, by -P9000", "leave one of them out"),
    ("SERVER=sockmux SERVER=sockmux://h:1 PORT=1", "SERVER=sockmux://h:1: SERVER=sockmux asks", "leave one of them out"),
    ("SERVER=sockmux://h:1 SERVER=sockmux://i:1 PORT=1", "SERVER=sockmux://i:1: there is one persistent connection already, by SERVER=sockmux://h:1", "second process"),
    ("-P9000 PORT=9000", "PORT=9000: the entrance *:9000 is the port of the persistent connection", "different ports"),
    ("-P9000 PORT=8990-9010", "PORT=8990-9010: the entrance *:9000", "different ports"),
    ("-P9000 PORT=127.0.0.1:9000", "PORT=127.0.0.1:9000: ", "different ports"),
    ("-P9000 -P9000 PORT=1", "-P9000: *:9000 and *:9000 of -P9000", "leave one of them out"),
    ("-P9000 PORT=1 PORT=h:1", "PORT=h:1: h:1 and *:1 of PORT=1 are the same port", "leave one of them out"),
    ("SERVER=sockmux://127.0.0.1:9000 PORT=9000", "SERVER=sockmux://127.0.0.1:9000: it would connect to the entrance PORT=9000", "port that the receptor listens on"),
    // -P
    ("-P", "-P", "--help"),
    ("-Pabc DEST=h:1", "-Pabc: `abc` is not a port", "1 to 65535"),
    ("-P99999 DEST=h:1", "-P99999: `99999` is not a port", "1 to 65535"),
    ("-P::1:9000 DEST=h:1", "-P::1:9000", "brackets"),
    ("-P9000/udp DEST=h:1", "-P9000/udp: the persistent connection is never UDP", "write -P9000, or PORT=9000/udp for an entrance, or add SERVER=udprelay://host:port"),
    ("-P1 -Ph:5-6/udp,5-6 PORT=7", "-Ph:5-6/udp,5-6: the persistent connection is never UDP", "write -Ph:5-6,5-6,"),
    ("-P53/udp,53 PORT=7", "-P53/udp,53: the persistent connection is never UDP", "write -P53, or PORT=53/udp for"),
    ("-P53/udp", "-P53/udp: the persistent connection is never UDP", "SERVER=udprelay://host:port"),
    ("-P53/udp SERVER=sockmux://h:1 PORT=1", "-P53/udp: the persistent connection is never UDP", "PORT=53/udp for an entrance"),
    ("-PORT=9023 DEST=h:1", "-PORT=9023: -P takes [host]:port", "did you mean `PORT=9023`?"),
    ("-Ph/x:9000 DEST=h:1", "-Ph/x:9000: `/x:9000`", "only /udp"),
    // PORT=
    ("-P1 PORT=", "PORT=: an empty port", "9023"),
    ("-P1 PORT=telnet", "PORT=telnet: `telnet` is not a port", "1 to 65535"),
    ("-P1 PORT=20-10", "PORT=20-10: the range `20-10` runs backwards", "write 10-20"),
    ("-P1 PORT=5,5", "PORT=5,5: *:5 and *:5 are the same port", "leave one of them out"),
    ("-P1 PORT=2-9999", "PORT=2-9999: 9998 ports are more", "smaller range"),
    ("-P1 PORT=2-4000 PORT=5000-6000", "PORT=5000-6000: 5000 ports are more", "smaller range"),
    ("-P1 PORT=unix:", "PORT=unix:: no Unix socket is named", "unix:/run/service.sock"),
    ("-P1 PORT=unix:/x,80", "PORT=unix:/x,80: `/x,80` has a comma in it", "a parameter of its own"),
    ("-P1 PORT=80,unix:/x", "PORT=80,unix:/x: the Unix socket `unix:/x` stands where only ports do", "write PORT=unix:/x"),
    ("-P1 PORT=unix:/x PORT=unix:/x?mode=660", "PORT=unix:/x?mode=660: PORT=unix:/x is the same socket", "leave one of them out"),
    ("-P1 PORT=unix:/x?mode=rw", "PORT=unix:/x?mode=rw: `rw` is not a mode", "in octal"),
    ("-P1 PORT=unix:/x?proxy=v2", "`v2` is nothing that proxy can be at an entrance", "write proxy=accept"),
    ("-P1 PORT=53/udp?proxy=accept", "PORT=53/udp?proxy=accept: a PROXY header stands before a stream", "leave ?proxy=accept out"),
    ("-Punix:/x PORT=1", "-Punix:/x: the Unix socket `unix:/x` stands where only ports do", "PORT=unix:/x for an entrance"),
    ("-P1?proxy=accept PORT=2", "-P1?proxy=accept: a PROXY header is taken at entrances for streams only", "leave ?proxy=accept out"),
    ("-P1 PORT=53/tcp", "PORT=53/tcp: `/tcp` behind the port is not known", "TCP has no suffix"),
    ("-P1 PORT=53/UDP", "PORT=53/UDP: `/UDP` behind the port is not known", "only /udp"),
    ("-P1 PORT=53/udp,50-60/udp", "PORT=53/udp,50-60/udp: *:53/udp and *:53/udp are the same port", "leave one of them out"),
    ("-P1 PORT=53/udp PORT=h:53/udp", "PORT=h:53/udp: h:53/udp and *:53/udp of PORT=53/udp are the same port", "leave one of them out"),
    // DEST=
    ("-P1 DEST=", "DEST=: `` has no port", "DEST=host:port"),
    ("-P1 DEST=5432", "DEST=5432: `5432` names no host", "DEST=127.0.0.1:5432"),
    ("-P1 DEST=:5432", "DEST=:5432: no host is named", "DEST=127.0.0.1:5432"),
    ("-P1 DEST=h", "DEST=h: `h` has no port", "DEST=host:port"),
    ("-P1 DEST=h:0", "DEST=h:0: nothing can be reached at port 0", "1 to 65535"),
    ("-P1 DEST=h:1-5", "DEST=h:1-5: `1-5` is more than one port", "a DEST= for each"),
    ("-P1 DEST=::1:80", "DEST=::1:80", "brackets"),
    ("-P1 DEST=h:0/udp", "DEST=h:0/udp: nothing can be reached at port 0", "1 to 65535"),
    ("-P1 DEST=h:53/tcp", "DEST=h:53/tcp: `53/tcp` is not a port", "1 to 65535"),
    ("-P1 DEST=h:53-54/udp", "DEST=h:53-54/udp: `53-54` is more than one port", "a DEST= for each"),
    ("-P1 DEST=h:53/udp:-P53/udp", "DEST=h:53/udp:-P53/udp: a host list takes the number", "write -P53:"),
    ("-P1 DEST=unix:", "DEST=unix:: no Unix socket is named", "unix:/run/service.sock"),
    ("-P1 DEST=unix:@x", "DEST=unix:@x: `@x` is an abstract name", "unix:/run/service.sock"),
    ("-P1 DEST=unix:/x?mode=600", "DEST=unix:/x?mode=600: `mode` is not an option here", "known are proxy"),
    ("-P1 DEST=h:+65536", "DEST=h:+65536: `65536` is not a port", "1 to 65535"),
    ("-P1 DEST=h:-x", "DEST=h:-x: `x` is not a port", "1 to 65535"),
    ("-P1 DEST=h:80-", "DEST=h:80-: `80-` is more than one port", "DEST=host:- for the port"),
    ("-P1 DEST=h:1?proxy=accept", "DEST=h:1?proxy=accept: `accept` is nothing that proxy can be at an exit", "proxy=v1 or proxy=v2"),
    ("-P1 DEST=h:1?prxy=v1", "DEST=h:1?prxy=v1: `prxy` is not an option here", "did you mean `proxy`?"),
    ("-P1 DEST=h:1/udp?proxy=v1", "DEST=h:1/udp?proxy=v1: a PROXY header stands before a stream", "leave ?proxy= out"),
    ("-P1 DEST=h:1?proxy=v1&proxy=v2", "proxy is given twice", "keep one"),
    ("-P1 DEST=http://h", "DEST=http://h: DEST takes no protocol", "SERVER=http://h,-in"),
    ("-P1 DEST=h:1:", "DEST=h:1:: an empty host in the list", "192.168.0.0/16"),
    ("-P1 DEST=h:1:10.0.0.0/99", "DEST=h:1:10.0.0.0/99: the mask `/99` does not fit", "/0 to /32"),
    ("-P1 DEST=h:1:*.example.*", "`*.example.*` is not a name pattern", "as in *.example.org or mail*"),
    ("-P1 DEST=h:1:nowhere", "DEST=h:1:nowhere: the host `nowhere` cannot be looked up", "give its address"),
    ("-P1 DEST=1.2.3:80", "DEST=1.2.3:80: `1.2.3` is not an IPv4 address", "127.0.0.1"),
    ("-P1 DEST=u@h:80", "DEST=u@h:80: `u@h` has a user name", "the host alone"),
    // SERVER=
    ("SERVER=sockmux://h PORT=1", "SERVER=sockmux://h: `h` has no port", "SERVER=sockmux://h:port"),
    ("SERVER=sockmux://h:0 PORT=1", "SERVER=sockmux://h:0: nothing can be reached at port 0", "1 to 65535"),
    ("SERVER=sockmux://:9 PORT=1", "SERVER=sockmux://:9: no host", "SERVER=sockmux://host:port"),
    ("SERVER=sockmux:h:9000 PORT=1", "`sockmux:h:9000` is not a persistent connection", "both slashes"),
    ("SERVER=sockmux://h:1,-in PORT=1", "`,-in` has no meaning for the persistent connection", "SERVER=sockmux://host:port"),
    // devices and commands
    ("SERVER=sockmux:commin@com0 PORT=1", "SERVER=sockmux:commin@com0: the device for output is missing", "add SERVER=sockmux:commout@PATH"),
    ("SERVER=sockmux:commout@com0 PORT=1", "SERVER=sockmux:commout@com0: the device for input is missing", "add SERVER=sockmux:commin@PATH"),
    ("SERVER=sockmux:commin@c SERVER=sockmux:commout@c PORT=1", "SERVER=sockmux:commout@c: it is both input and output", "mkfifo"),
    ("SERVER=sockmux:commin@c SERVER=sockmux:commin@d PORT=1", "SERVER=sockmux:commin@d: there is one persistent connection already, by SERVER=sockmux:commin@c", "second process"),
    ("SERVER=sockmux:commin@c SERVER=sockmux:comm@d PORT=1", "SERVER=sockmux:comm@d: there is one persistent connection already, by SERVER=sockmux:commin@c", "second process"),
    ("SERVER=sockmux:comm@d SERVER=sockmux:commout@c PORT=1", "SERVER=sockmux:commout@c: there is one persistent connection already, by SERVER=sockmux:comm@d", "second process"),
    ("SERVER=sockmux:comm@d SERVER=sockmux://h:1 PORT=1", "SERVER=sockmux://h:1: there is one persistent connection already, by SERVER=sockmux:comm@d", "leave one of them out"),
    ("SERVER=sockmux:proc@a SERVER=sockmux:proc@b PORT=1", "there is one persistent connection already, by SERVER=sockmux:proc@a", "second process"),
    ("-P9000 SERVER=sockmux:comm@d PORT=1", "SERVER=sockmux:comm@d: the persistent connection is also accepted, by -P9000", "write PORT= for an entrance"),
    ("-P9000 SERVER=sockmux:proc@a", "SERVER=sockmux:proc@a: nothing would ever flow", "add PORT="),
    ("SERVER=sockmux SERVER=sockmux:proc@a PORT=1", "SERVER=sockmux:proc@a: SERVER=sockmux asks", "leave one of them out"),
    ("SERVER=sockmux:comm@d", "SERVER=sockmux:comm@d: nothing would ever flow", "DEST=host:port"),
    ("SERVER=sockmux:comm@ PORT=1", "SERVER=sockmux:comm@: no device is named", "comm@/dev/ttyUSB0"),
    ("SERVER=sockmux:commin@ PORT=1", "SERVER=sockmux:commin@: no device is named", "give its path"),
    ("SERVER=sockmux:proc@ PORT=1", "SERVER=sockmux:proc@: no command is given", "behind proc@"),
    ("SERVER=sockmux:com@d PORT=1", "SERVER=sockmux:com@d: `com@` carries no persistent connection", "did you mean `comm`?"),
    ("SERVER=sockmux:proc PORT=1", "`sockmux:proc` is not a persistent connection", "sockmux:proc@COMMAND"),
    ("SERVER=sockmux:comm@d,-in PORT=1", "SERVER=sockmux:comm@d,-in: `,-in` has no meaning", "write `d` alone"),
    ("SERVER=sockmux:commin@d?baud=9600 PORT=1", "options (`baud=9600`) are for a device both ways", "SERVER=sockmux:comm@DEVICE?option=value"),
    ("SERVER=sockmux:comm@d? PORT=1", "`` is not an option of a serial line", "known are baud, flow"),
    ("SERVER=sockmux:comm@d?buad=9600 PORT=1", "SERVER=sockmux:comm@d?buad=9600: `buad` is not an option of a serial line", "did you mean `baud`?"),
    ("SERVER=sockmux:comm@d?9600 PORT=1", "`9600` is not an option of a serial line", "known are baud, flow"),
    ("SERVER=sockmux:comm@d?baud=fast PORT=1", "`fast` is not a rate", "as in baud=115200"),
    ("SERVER=sockmux:comm@d?baud=0 PORT=1", "`0` is not a rate", "give 50 to 12000000 bits a second"),
    ("SERVER=sockmux:comm@d?baud=+9600 PORT=1", "`+9600` is not a rate", "as in baud=115200"),
    ("SERVER=sockmux:comm@d?baud=99999999 PORT=1", "`99999999` is not a rate", "give 50 to 12000000"),
    ("SERVER=sockmux:comm@d?baud=1200&baud=9600 PORT=1", "baud is given twice", "keep one"),
    ("SERVER=sockmux:comm@d?flow=hard PORT=1", "`hard` is nothing that flow can be", "flow=none, flow=rtscts or flow=xonxoff"),
    ("SERVER=sockmux:comm@d?flow PORT=1", "`` is nothing that flow can be", "flow=rtscts"),
    ("SERVER=sockmux:comm@d?parity=mark PORT=1", "`mark` is nothing that parity can be", "parity=even"),
    ("SERVER=sockmux:comm@d?bits=7 PORT=1", "the tunnel's bytes have 8 bits, bits=7 would cut them", "bits=8 at both ends"),
    ("SERVER=sockmux:comm@d?bits=9 PORT=1", "`9` is nothing that bits can be", "give bits=8"),
    ("SERVER=sockmux:comm@d?stop=3 PORT=1", "`3` is nothing that stop can be", "stop=1 or stop=2"),
    ("SERVER=sockmux:comm@d?check=yes PORT=1", "`yes` is nothing that check can be", "check=auto"),
    ("SERVER=sockmux:comm@d?flow=xonxoff,check=no PORT=1", "flow=xonxoff takes two of the 256 bytes for itself", "flow=rtscts"),
    ("SERVER=sockmux:comm@d?flow=xonxoff SOXCONF=protocol:0.3 PORT=1", "SockMux 0.3 uses all of them", "flow=rtscts"),
    ("-P1 SERVER=nntp,-in", "SERVER=nntp,-in: a proxy (`nntp,-in` without a server) is not supported", "SERVER=nntp://host,-in"),
    ("-P1 SERVER=ftp://,-in", "`ftp://` names no server", "SERVER=ftp,-in for a proxy"),
    ("-P1 SERVER=ftp://h?proxy=v1,-in", "ftp:// takes no options (`proxy=v1`)", "SERVER=tcprelay://host:21?proxy=v1,-in"),
    ("-P1 SERVER=ftp://h:-,-in", "the port of ftp:// is one of the server's", "SERVER=tcprelay://h:-,-in"),
    ("-P1 SERVER=ftp://h/udp,-in", "FTP is never UDP", "leave /udp out"),
    ("-P1 SERVER=ftp://h/pub,-in", "the path `/pub` has no meaning", "host and port only"),
    ("-P1 PERMIT=fpt:*:*", "`fpt` is not a protocol", "did you mean `ftp`?"),
    ("-P1 SERVER=smtp,-in:-:-P25", "a proxy (`smtp,-in` without a server)", "the proxies are socks,-in"),
    ("-P1 SERVER=telnet://,-in", "`telnet://` names no server", "SERVER=telnet,-in for a proxy"),
    ("-P1 SERVER=exec:cat", "SERVER=exec:cat: a command is run for streams of the peer only", "SERVER=\"exec:cat,-in\""),
    ("-P1 SERVER=exec:,-in", "SERVER=exec:,-in: no command is given", "between exec: and ,-in"),
    ("-P1 SERVER=exec:cat,-in:80", "`:80` is not understood behind ,-in", ",-in:-:192.168.0.0/16"),
    ("-P1 SERVER=http://h?proxy=v3,-in", "`v3` is nothing that proxy can be at an exit", "proxy=v1 or proxy=v2"),
    ("-P1 SERVER=tcprelay://h:1?proxy=v1", "a plain relay has no options (`proxy=v1`)", "make it an exit by ,-in"),
    ("-P1 SERVER=h:80,-in", "`h:80` names no protocol", "SERVER=tcprelay://h:80,-in"),
    ("-P1 SERVER=telnet://h,-in(+=x", "SERVER=telnet://h,-in(+=x: the parenthesis behind ,-in is not closed", "write ,-in(option list)"),
    ("-P1 SERVER=telnet://h,-in:10.0.0.1", "`:10.0.0.1` is not understood behind ,-in", ",-in:-:192.168.0.0/16"),
    ("-P1 SERVER=telnet://h,-in:-:", "an empty host in the list", "-P8023"),
    ("-P1 SERVER=telnet://h,-out", "has an option that is not known", ",-in"),
    ("-P1 SERVER=telnet://h/x,-in", "the path `/x` has no meaning", "host and port only"),
    ("-P1 SERVER=tcprelay://h,-in", "SERVER=tcprelay://h,-in: `tcprelay` has no standard port", "give the port"),
    ("-P1 SERVER=telnte://h,-in", "SERVER=telnte://h,-in: `telnte` has no standard port", "did you mean `telnet`?"),
    ("SERVER=sockmux://h:1/udp PORT=1", "SERVER=sockmux://h:1/udp: the persistent connection is never UDP", "leave /udp out: SERVER=sockmux://h:1"),
    ("-P1 SERVER=udprelay://h,-in", "SERVER=udprelay://h,-in: `udprelay` has no standard port", "SERVER=udprelay://host:port,-in"),
    ("-P1 SERVER=udprelay://h/udp,-in", "`udprelay` has no standard port", "give the port"),
    ("-P1 SERVER=tcprelay://h:1/udp,-in", "SERVER=tcprelay://h:1/udp,-in: tcprelay carries no UDP", "write udprelay://h:1 or leave /udp out"),
    ("-P1 SERVER=udprelay,-in", "a proxy (`udprelay,-in` without a server) is not supported", "name the server"),
    ("-P1 SERVER=dns://h:53/udp", "a dns server of its own is not supported", "SERVER=dns://h:53/udp,-in"),
    // plain relay
    ("SERVER=tcprelay://h:1", "SERVER=tcprelay://h:1: there is no entrance for clients of the plain relay", "add -P[host]:port"),
    ("-P1 SERVER=tcprelay://h", "SERVER=tcprelay://h: `tcprelay` has no standard port", "give the port"),
    ("-P1 SERVER=tcprelay://h:0", "SERVER=tcprelay://h:0: nothing can be reached at port 0", "1 to 65535"),
    ("-P1 SERVER=tcprelay://", "SERVER=tcprelay://: a proxy (`tcprelay,-in` without a server)", "name the server"),
    ("-P1 SERVER=tcprelay://h:1/udp", "SERVER=tcprelay://h:1/udp: tcprelay carries no UDP", "write udprelay://h:1"),
    ("-P1 SERVER=tcprelay://h:1,-out", "`tcprelay://h:1,-out` has an option that is not known", ",-in"),
    ("-P1/udp SERVER=tcprelay://h:1", "-P1/udp: *:1/udp takes in UDP, but SERVER=tcprelay://h:1 relays TCP", "write -P1, or SERVER=udprelay://h:1 to relay UDP"),
    ("-P53 SERVER=udprelay://h:1", "-P53: *:53 takes in TCP, but SERVER=udprelay://h:1 relays UDP", "write -P53/udp"),
    ("-P53 -P54/udp SERVER=udprelay://h:1", "-P53: *:53 takes in TCP", "write -P53/udp"),
    ("-P53 -P54/udp SERVER=tcprelay://h:1", "-P54/udp: *:54/udp takes in UDP", "write -P54, or"),
    ("-P80/udp,50-59,80 SERVER=udprelay://h:1", "*:50 takes in TCP", "write -P80/udp,50-59/udp"),
    ("-P53,53/udp SERVER=udprelay://h:1", "-P53,53/udp: *:53 takes in TCP", "write -P53/udp"),
    ("SERVER=udprelay://h:1", "SERVER=udprelay://h:1: there is no entrance for clients of the plain relay", "add -P[host]:port/udp"),
    ("-P1/udp SERVER=udprelay://h", "SERVER=udprelay://h: `udprelay` has no standard port", "give the port"),
    ("-P1/udp SERVER=udprelay://localhost:1", "it would connect to -P1/udp of this very process", "port that the server listens on"),
    ("-P1/udp SERVER=udprelay://h:1 PORT=2/udp", "a plain relay has no persistent connection, which PORT=2/udp is about", "come in by -P[host]:port/udp, or write SERVER=udprelay://h:1,-in"),
    ("-P1/udp SERVER=udprelay://h:1 SERVER=tcprelay://h:2", "there is one plain relay already, by SERVER=udprelay://h:1", "second process"),
    ("-P1/udp SERVER=udprelay://h:1,-out", "`udprelay://h:1,-out` has an option that is not known", ",-in"),
    ("-P1 SERVER=tcprelay://h:1 PORT=2", "SERVER=tcprelay://h:1: a plain relay has no persistent connection, which PORT=2 is about", "leave PORT=2 out"),
    ("-P1 SERVER=tcprelay://h:1 DEST=h:2", "a plain relay has no persistent connection, which DEST=h:2 is about", "SERVER=tcprelay://h:1,-in"),
    ("-P1 SERVER=tcprelay://h:1 SERVER=telnet://h,-in", "which SERVER=telnet://h,-in is about", "leave SERVER=telnet://h,-in out"),
    ("-P1 SERVER=tcprelay://h:1 SERVER=sockmux", "which SERVER=sockmux is about", "leave SERVER=sockmux out"),
    ("SERVER=sockmux://x:9 SERVER=tcprelay://h:1", "SERVER=tcprelay://h:1: a plain relay has no persistent connection, which SERVER=sockmux://x:9 is about", "-P[host]:port"),
    ("-P1 SERVER=tcprelay://h:1 SERVER=tcprelay://h:2", "SERVER=tcprelay://h:2: there is one plain relay already, by SERVER=tcprelay://h:1", "second process"),
    ("-P1 SERVER=tcprelay://localhost:1", "SERVER=tcprelay://localhost:1: it would connect to -P1 of this very process", "port that the server listens on"),
    ("-P5,5 SERVER=tcprelay://h:1", "-P5,5: *:5 and *:5 are the same port", "leave one of them out"),
    ("-P1 SERVER=http://h", "SERVER=http://h: a http server of its own is not supported", "SERVER=http://h,-in"),
    ("-P1 SERVER=sockmx://h:1", "`sockmx://h:1` is not a server", "SERVER=sockmux://host:port"),
    // other parameters
    ("-P1 SEVER=sockmux", "SEVER=sockmux: `SEVER` is not a parameter", "did you mean `SERVER`?"),
    ("-P1 port=1", "port=1: `port` is not a parameter", "did you mean `PORT`?"),
    ("-P1 DST=h:1", "DST=h:1: `DST` is not a parameter", "did you mean `DEST`?"),
    ("-P1 ELEPHANT=1", "ELEPHANT=1: `ELEPHANT` is not a parameter", "known are SERVER, PORT"),
    ("-P1 =1", "=1: `` is not a parameter", "known are SERVER"),
    ("-P1 RELIABLE=", "RELIABLE=: an empty host in the list", "give host[,host]"),
    ("-P1 RELIABLE=10.0.0.0/33", "RELIABLE=10.0.0.0/33: the mask `/33` does not fit", "give /0 to /32"),
    ("-P1 RELIABLE=a*b", "RELIABLE=a*b: `a*b` is not a name pattern", "as in *.example.org"),
    ("-P1 MAXIMA=5", "MAXIMA=5: `5` is not what:number", "MAXIMA=conpch:10"),
    ("-P1 MAXIMA=conpch:0", "MAXIMA=conpch:0: `0` is not a number of streams", "give 1 or more"),
    ("-P1 MAXIMA=conpch:1 MAXIMA=conpch:2", "MAXIMA=conpch:2: conpch is already set to 1", "keep one"),
    ("-P1 MAXIMA=conphc:1", "MAXIMA=conphc:1: `conphc` is not a number", "did you mean `conpch`?"),
    ("-P1 PERMIT=*:*", "PERMIT=*:*: `*:*` has not three parts", "PERMIT=protoList:dstHostList:srcHostList"),
    ("-P1 PERMIT=sock:*:*", "`sock` is not a protocol", "did you mean `socks`?"),
    ("-P1 PERMIT=*:10.0.0.0/33:*", "`/33` does not fit", "give /0 to /32"),
    ("-P1 REJECT=*:*:*", "REJECT= is not supported in this version", "DEST=host:port:192.168.0.0/16"),
    ("-P1 FCL=sslway", "FCL= is not supported", "STLS=fcl at the end that accepts it"),
    // encryption
    ("-P1 DEST=h:1 STLS=fsv", "STLS=fsv: fsv is for the end that makes the persistent connection", "write STLS=fcl"),
    ("SERVER=sockmux://h:1 PORT=1 STLS=fcl", "STLS=fcl: fcl is for the end that accepts", "write STLS=fsv"),
    ("-P1 DEST=h:1 STLS=-fcl", "STLS=-fcl: -fcl, which goes on in clear", "write STLS=fcl"),
    ("-P1 DEST=h:1 STLS=fcl,sslway", "STLS=fcl,sslway: sslway is not supported", "TLS is built in"),
    ("-P1 DEST=h:1 STLS=fcl/im", "STLS=fcl/im: `fcl/im` is no side", "write STLS=fsv at the end that makes it"),
    ("-P1 DEST=h:1 STLS=", "STLS=: `` is no side", "STLS=fcl at the end that accepts it"),
    ("SERVER=sockmux:commin@a SERVER=sockmux:commout@b PORT=1 TLSCONF=secret:s", "TLSCONF=secret:s: neither end of two FIFOs dials", "write STLS=fsv at one end"),
    ("-Fsockmux -Ia -Ob DEST=h:1 STLS=fcl,fsv", "STLS=fcl,fsv: neither end of two FIFOs dials", "STLS=fcl at the other"),
    ("SERVER=sockmux:comm@com1 PORT=1 TLSCONF=secret:s", "TLSCONF=secret:s: neither end of a device dials", "write STLS=fsv at one end"),
    ("-Fsockmux -Xcom1 DEST=h:1 STLS=fsv,fcl", "STLS=fsv,fcl: neither end of a device dials", "STLS=fcl at the other"),
    ("SERVER=sockmux:comm@com1?check=no PORT=1 STLS=fcl", "STLS=fcl: with check=no the line's errors pass", "leave check=no out"),
    ("-P1 SERVER=tcprelay://h:1 STLS=fcl", "STLS=fcl: there is no persistent connection", "leave it out"),
    ("-P1 SERVER=socks STLS=fcl", "STLS=fcl: there is no persistent connection", "leave it out"),
    ("-P1 DEST=h:1 TLSCONF=x", "TLSCONF=x: `x` is not known", "known are key, peer"),
    ("-P1 DEST=h:1 TLSCONF=kye:a", "`kye` is not known", "did you mean `key`?"),
    ("-P1 DEST=h:1 TLSCONF=peer:", "TLSCONF=peer:: peer has no value", "keygen` prints at the other end"),
    ("-P1 DEST=h:1 TLSCONF=peer:hostY", "`hostY` is not a fingerprint", "SHA256: and 43 characters"),
    ("-P1 DEST=h:1 TLSCONF=peer:a/b=SHA256:x", "`a/b` is not a name for a peer", "letters, digits"),
    ("-P1 DEST=h:1 TLSCONF=key:a,key:b", "key: is given twice", "keep one of the two"),
    ("-P1 DEST=h:1 TLSCONF=secret:a,key:b", "secret: makes the keys of both ends, and key: is given too", "leave one of them out"),
    ("-P1 DEST=h:1 TLSCONF=secret:a,ca:b", "secret: makes the keys of both ends, and ca: is given too", "leave one of them out"),
    ("-P1 DEST=h:1 TLSCONF=name:h", "name:h is about certificates", "add ca:FILE"),
    ("SERVER=sockmux:proc@x PORT=1 TLSCONF=ca:a.pem", "the name in the peer's certificate is not known", "add name:HOST"),
    ("-P1 SERVER=telnet://h,-in:-:peer=a", "SERVER=telnet://h,-in:-:peer=a: peer=a: peers have no names here", "add TLSCONF=peer:a=SHA256:..."),
    ("-P1 DEST=h:1:peer=a TLSCONF=secret:s", "DEST=h:1:peer=a: peer=a: peers have no names here", "add TLSCONF=peer:a=SHA256:..."),
    ("-P1 PORT=22?peer=a", "PORT=22?peer=a: peer=a: peers have no names here", "add TLSCONF=peer:a=SHA256:..."),
    ("-P1 PORT=22?peer=a/b", "PORT=22?peer=a/b: `a/b` is not a name for a peer", "letters, digits"),
    ("-P1 DEST=h:1:peer=a/b", "DEST=h:1:peer=a/b: `a/b` is not a name for a peer", "letters, digits"),
    ("-P1 DEST=h:1:!peer=a", "DEST=h:1:!peer=a: `!peer=a` shuts out a peer", "as in peer=hostY"),
    ("keygen a b", "keygen: `b` is not understood", "keygen [--secret] [FILE]"),
    ("keygen --sceret", "keygen: `--sceret` is not understood", "keygen [--secret] [FILE]"),
    ("keygen DEST=h:1", "keygen: `DEST=h:1` is not understood", "keygen [--secret] [FILE]"),
    ("-P1 ADMIN=me", "ADMIN= is not supported", "leave it out"),
    ("-f -r -vd -P1 ADMIN=me OWNER=a/b DGROOT=/v DEST=h:1", "-f, -r, -vd, ADMIN=, OWNER=, DGROOT= are not supported", "leave them out"),
    ("-L 8080:h:80", "-L is an option of ssh", "write PORT=8080 here and DEST=h:80 at the other end"),
    ("-P1 DEST h:22", "`DEST` stands without its value", "write DEST=h:22"),
    ("-P1 -x", "`-x` is not an option", "-h lists"),
    ("-P1 --chekc", "`--chekc` is not an option", "did you mean `--check`?"),
    ("-c x.toml", "`-c` asks for a configuration file", "write +=x.toml"),
    ("-P53/udp SERVER=udprelay://h:53 MAXIMA=service:1", "MAXIMA=service counts connections", "leave it out"),
    ("-P1 PORT=53/udp MAXIMA=service:1", "MAXIMA=service counts connections", "add an entrance for TCP"),
    ("-P1 SERVER=socks,-in(MAXIMA=service:1)", "MAXIMA=service is the whole process's", "outside of the parentheses"),
    ("-P1 DEST=h:1 MAXIMA=service:0", "`0` is not a number", "give 1 or more"),
    ("-P1 DEST=h:1:.", "`.` meant this host", ".localnet for this machine"),
    ("-P1 DEST=h:1:./.", "`./.` meant the network of this host", "write .localnet"),
    ("-P1 DEST=h:1:-/.", "`-/.` meant the network of the interface that the client came in by", "write .localnet"),
    ("-P1 DEST=h:1:.o/.", "`.o/.` meant the network of the interface that leads", "write .localnet"),
    ("-P1 DEST=h:1:10.1.2.3/.", "the mask `/.` meant the network by the class", "as in 10.1.2.3/8"),
    ("-P1 DEST=h:1:192.168.1.0/@", "the mask `/@` meant the network by the class", "as in 192.168.1.0/24"),
    ("-P1 DEST=h:1:.localnt", "`.localnt` is not a host", "did you mean `.localnet`?"),
    ("-P1 TIMEOUT=cno:1", "TIMEOUT=cno:1: `cno` is not a time", "did you mean `con`?"),
    ("-P1 TIMEOUT=con:1 TIMEOUT=con:2", "TIMEOUT=con:2: con is already set to 1 s", "keep one"),
    ("-P1 SOXCONF=packsize:1", "SOXCONF=packsize:1: `1` is not a packet size", "128 to 16k"),
    ("-P1 TIMEOUT=udp:soon", "TIMEOUT=udp:soon: `soon` is not a time", "0 is never"),
    ("-P1 SOXCONF=udpflows:0", "SOXCONF=udpflows:0: `0` is not a number of UDP flows", "give 1 to 16000"),
    ("-P1 SOXCONF=udpflows:16001", "`16001` is not a number of UDP flows", "give 1 to 16000"),
    ("-P1 SOXCONF=ports:20-30", "SOXCONF=ports:20-30: `20-30` is not a range of ports", "as in ports:20000-20099"),
    ("-P1 SOXCONF=cript:no", "SOXCONF=cript:no: `cript` is not known", "did you mean `crypt`?"),
    // bare words
    ("-P1 9023", "9023: not NAME=value", "write PORT=9023"),
    ("-P1 53/udp", "53/udp: not NAME=value", "write PORT=53/udp for an entrance"),
    ("-P1 h:53/udp", "h:53/udp: not NAME=value", "did you mean `DEST=h:53/udp`?"),
    ("-P1 sockmux://h:1", "sockmux://h:1: not NAME=value", "did you mean `SERVER=sockmux://h:1`?"),
    ("-P1 localhost:5432", "localhost:5432: not NAME=value", "did you mean `DEST=localhost:5432`?"),
    ("demp", "demp: not NAME=value", "did you mean `sockmux-uring demo`?"),
    ("-P1 PORT", "PORT: not NAME=value", "did you mean `PORT=...`?"),
    ("-P1 elephant", "elephant: not NAME=value", "known names are SERVER"),
    ("-P1 +=", "+=: no file is named", "write +=FILE"),
    // options
    ("demo PORT=1", "demo: no parameter", "`sockmux-uring demo` alone"),
    ("PORT=1 demo", "demo: no parameter", "leave demo out"),
    ("demo --check", "demo: no parameter", "leave demo out"),
    ("demo -P1", "demo: no parameter", "leave demo out"),
    ("demo --user a", "demo: no parameter", "leave demo out"),
    ("demo --sandbox off", "demo: no parameter", "leave demo out"),
    ("--user a:b:c -P1 PORT=2", "--user `a:b:c` is not a user", "--user NAME:GROUP"),
    ("--sandbox maybe -P1 PORT=2", "maybe", "auto, on, off"),
    ("-A9000 PORT=1", "-A9000: -A has a meaning with -Fsockmux only", "add -Fsockmux, or write -P[host]:port"),
    ("-C9000 PORT=1", "-C9000: -C has a meaning with -Fsockmux only", "SERVER=sockmux://host:port"),
    ("-Ififo PORT=1", "-Ififo: -I has a meaning with -Fsockmux only", "SERVER=sockmux:commin@PATH"),
    ("-Ofifo PORT=1", "-Ofifo: -O has a meaning with -Fsockmux only", "SERVER=sockmux:commout@PATH"),
    ("-Xfifo PORT=1", "-Xfifo: -X has a meaning with -Fsockmux only", "SERVER=sockmux:comm@PATH"),
    ("-Qh:9000 -P1", "-Qh:9000: -Q has a meaning with -Fsockmux only", "DEST=host:port"),
    // -Fsockmux
    ("-Fcp -P1", "-Fcp: `cp` is not a function of this program", "write -Fsockmux, or leave -F out"),
    ("-Fsockmx -P1", "-Fsockmx: `sockmx` is not a function", "did you mean `-Fsockmux`?"),
    ("-Fsockmux", "-Fsockmux: nothing would ever flow", "add PORT="),
    ("-Fsockmux -A9000", "-Fsockmux: nothing would ever flow", "DEST=host:port"),
    ("-Fsockmux -A9000 -P9000", "-P9000: the entrance *:9000 is the port of the persistent connection, *:9000 of -A9000", "different ports"),
    ("-Fsockmux -A9000/udp -P1", "-A9000/udp: the persistent connection is never UDP", "-P for an entrance"),
    ("-Fsockmux -A9000 -C9001 -P1", "-C9001: the persistent connection is also accepted, by -A9000", "leave one of them out"),
    ("-Fsockmux -A9000 -Xd -P1", "-Xd: the persistent connection is also accepted, by -A9000", "write -P for an entrance"),
    ("-Fsockmux -C9000 -Cx:1 -P1", "-Cx:1: there is one persistent connection already, by -C9000", "leave one of them out"),
    ("-Fsockmux -C9000 -Ia -Ob -P1", "-Ia: there is one persistent connection already, by -C9000", "leave one of them out"),
    ("-Fsockmux -Ia -Ob -Xc -P1", "-Xc: there is one persistent connection already, by -Ia", "leave one of them out"),
    ("-Fsockmux -Xc SERVER=sockmux:proc@x -P1", "SERVER=sockmux:proc@x: there is one persistent connection already, by -Xc", "leave one of them out"),
    ("-Fsockmux -Ia -P1", "-Ia: the device for output is missing", "add -OPATH"),
    ("-Fsockmux -Oa -P1", "-Oa: the device for input is missing", "add -IPATH"),
    ("-Fsockmux -Ia -Oa -P1", "-Oa: it is both input and output", "mkfifo"),
    ("-Fsockmux -Xd?bits=7 -P1", "-Xd?bits=7: the tunnel's bytes have 8 bits", "bits=8"),
    ("-Fsockmux -ChostX -P1", "-ChostX: `hostX` is not a port", "1 to 65535"),
    ("-Fsockmux -C9000 -P9000", "-C9000: it would connect to the entrance -P9000", "port that the receptor listens on"),
    ("-Fsockmux -Q0", "-Q0: nothing can be reached at port 0", "1 to 65535"),
    ("-Fsockmux SERVER=sockmux -P1", "SERVER=sockmux: there is no address to accept", "add -A[host]:port"),
    ("-Fsockmux -P1 SERVER=tcprelay://h:1", "SERVER=tcprelay://h:1: a plain relay has no persistent connection, which -Fsockmux is about", "leave -Fsockmux out"),
    ("demo -Fsockmux", "demo: no parameter", "leave demo out"),
    ("-f -P1 PORT=2", "-f is not supported", "leave it out"),
    ("--chek", "--chek", "--check"),
    ("-Z", "-Z", "--help"),
    ("--log xml -P1 PORT=2", "xml", "text, json"),
];

#[test]
fn each_wrong_line_is_told_what_is_wrong_and_what_to_do() {
    assert_eq!(Failure::EXIT_CODE, 2);
    for (line, word, remedy) in WRONG {
        let message = message(line);
        assert!(message.contains(word), "{line}: the message does not name {word}: {message}");
        assert!(message.contains(remedy), "{line}: the message lacks {remedy}: {message}");
        assert!(!message.starts_with("error"), "{message}");
    }
}

#[test]
fn faults_in_a_file_name_its_line() {
    for (file, wanted) in [
        ("\n# x\nPORT=abc", "conf:3: PORT=abc: `abc` is not a port"),
        ("-Pabc", "conf:1: -Pabc: `abc` is not a port"),
        ("-P abc", "conf:1: -Pabc: `abc` is not a port"),
        ("-Fcp", "conf:1: -Fcp: `cp` is not a function"),
        ("-Ififo", "conf:1: -Ififo: -I has a meaning with -Fsockmux only"),
        ("--chek", "conf:1: --chek: "),
        ("--help", "conf:1: --help: this option prints and exits"),
        ("-v PORT=1", "conf:1: -v PORT=1: more than one option or parameter in a line"),
        ("PORT=1 PORT=2", "conf:1: PORT=1 PORT=2: `1 PORT=2` is not a port"),
        ("+=conf", "conf:1: +=conf: the file includes itself: conf -> conf"),
        ("PORT=9000", "conf:1: PORT=9000: the entrance *:9000"),
    ] {
        let failure = invoke(&["-P9000", "+=conf"], file).unwrap_err();
        assert!(failure.message().starts_with(wanted), "{file}: {failure}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let bad = OsString::from_vec(b"PORT=\xff".to_vec());
    let mut lookup = |_: &str| unreachable!();
    let failure =
        invocation::parse(["sockmux-uring".into(), bad], &OneFile(""), &mut lookup).unwrap_err();
    assert!(failure.message().contains("`PORT=\u{fffd}` is not UTF-8"), "{failure}");
}

#[test]
fn a_message_cannot_drive_the_terminal() {
    for word in ["PORT=\x1b[2J", "\x1b[2J", "--\x1b[2J", "SERVER=\x1b[2J,-in", "DEST=\x1b://"] {
        let failure = invoke(&["-P1", word], "").unwrap_err();
        assert!(!failure.message().contains('\x1b'), "{failure:?}");
    }
}

/// Words that are nearly right: pieces of the grammar in any order.
fn word() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("-P".to_owned()),
        Just("-Fsockmux".to_owned()),
        "-[ACIOXQ]",
        Just("sockmux:comm@".to_owned()),
        Just("?baud=".to_owned()),
        Just("SERVER=".to_owned()),
        Just("PORT=".to_owned()),
        Just("DEST=".to_owned()),
        Just("TIMEOUT=".to_owned()),
        Just("SOXCONF=".to_owned()),
        Just("+=".to_owned()),
        Just("sockmux".to_owned()),
        Just("://".to_owned()),
        Just(",-in".to_owned()),
        Just("http,-in(".to_owned()),
        Just("SERVER=http://".to_owned()),
        "[ ()'\"]",
        Just(":-:".to_owned()),
        Just("/udp".to_owned()),
        Just("[::1]".to_owned()),
        Just("con:10".to_owned()),
        Just("packsize:16k".to_owned()),
        Just("udprelay".to_owned()),
        Just("udpflows:9".to_owned()),
        Just("ports:2000-3000".to_owned()),
        Just("10.0.0.[1-9]".to_owned()),
        "[-,:!*/.\\[\\]_]",
        "[0-9]{1,6}",
        "[a-z]{1,8}",
        any::<char>().prop_map(String::from),
    ];
    prop_oneof![
        4 => proptest::collection::vec(piece, 0..7).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
    ]
}

proptest! {
    #[test]
    fn no_words_panic(args in proptest::collection::vec(word(), 0..6), file in word()) {
        match invoke(&args, &file) {
            Ok(Invocation { command: Command::Run(plan) | Command::Check(plan), .. }) => {
                prop_assert!(!show::plan(&plan).is_empty());
            }
            Ok(_) => {}
            Err(failure) => prop_assert!(!failure.message().is_empty()),
        }
    }

    #[test]
    fn no_value_panics(value in word()) {
        for name in ["SERVER", "PORT", "DEST", "TIMEOUT", "SOXCONF"] {
            let _ = invoke(&["-P1".to_owned(), "PORT=2".to_owned(), format!("{name}={value}")], "");
        }
    }
}
