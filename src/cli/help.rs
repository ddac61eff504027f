//! The text of `--help` that clap does not make from the options.

/// The ways to call the program.
pub(crate) const USAGE: &str = "\
sockmux-uring [OPTIONS] [-P[HOST]:PORT]... [NAME=VALUE | +=FILE]...
       sockmux-uring -Fsockmux [-A | -C | -I -O | -X] [-Q] [-P] [NAME=VALUE]...
       sockmux-uring keygen [--secret] [FILE]
       sockmux-uring status [--control PATH] [--json]
       sockmux-uring streams [--control PATH] [--json]
       sockmux-uring drain [--control PATH] [--json]
       sockmux-uring kill tunnel:N|stream:N|peer:NAME [--control PATH] [--json]
       sockmux-uring demo";

/// The text of `-h`: the common cases, on one screen of 24 lines and 80 columns.
pub(crate) const SHORT: &str = "\
Carry many TCP and UDP flows over one persistent connection (SockMux).

At the host that the other one can connect to, and at the other:
  sockmux-uring -P:9000 DEST=127.0.0.1:5432
  sockmux-uring SERVER=sockmux://HOST:9000 PORT=127.0.0.1:15432

  -P[HOST]:PORT               accept the persistent connection here
  SERVER=sockmux://HOST:PORT  connect it there, again and again
  PORT=[HOST:]PORT[/udp],...  clients come in here, at either end
  DEST=HOST:PORT[/udp]        and are connected there, at the other end
  SERVER=socks,-in            or where they ask to go (also http,-in; ftp,-in)
  RELIABLE=.localnet          who may connect at all: addresses, names, networks
  TLSCONF=peer:SHA256:...     encrypt it; the key that the other end has to have
  SERVER=tcprelay://HOST:PORT no tunnel: -P is where clients come in
  +=FILE                      read options and parameters from it, one a line

  -v, -vv                     log more        --log text|json
  --check                     say what the line means, and exit
  --engine auto|uring|epoll   what moves the bytes      -V, --version

  sockmux-uring keygen        make this end's key, print its fingerprint
  sockmux-uring demo          see it work, in one process
  sockmux-uring --help        everything: UDP, FTP, serial lines, commands, ...
";

/// Parameters, examples, exit codes and signals. No line is longer than 80 characters, so that
/// none is broken on a usual terminal.
pub(crate) const AFTER: &str = "\
The persistent connection (one of these):
  -P[HOST]:PORT                receptor: accept it here
  SERVER=sockmux://HOST:PORT   connector: connect there, reconnect for ever
  SERVER=sockmux:commin@FIFO SERVER=sockmux:commout@FIFO
                               two FIFOs, input and output; opened again when
                               the peer went away. The peer has them reversed
  SERVER=sockmux:comm@DEVICE[?OPTION&OPTION...]
                               one device both ways, such as a serial line
                               (quote the ? and & for the shell):
                               baud=N (115200), flow=none|rtscts|xonxoff,
                               parity=none|even|odd, stop=1|2, bits=8,
                               check=auto (between two of ours, all is checked
                               and sent again where the line spoiled it)|no
  SERVER=\"sockmux:proc@COMMAND\"
                               what /bin/sh -c makes of COMMAND; its standard
                               input and output are a socket to us, its errors
                               go to our log; run again when it ends
  -Fsockmux                    our own standard input and output, for the other
                               end of such a command; ends when they do. Or, as
                               the original has it: -A accept, -C connect,
                               -I -O FIFOs, -X device; -P is then an entrance,
                               -Q an exit

Encryption of the persistent connection (TLS 1.3), and who may be the peer:
  sockmux-uring keygen [FILE]  makes a key (sockmux.key), prints its fingerprint
  TLSCONF=ITEM,...             encrypt; both ends prove who they are. ITEMs:
                               peer:SHA256:... the other end's fingerprint
                               (peer:NAME=SHA256:... names it),
                               peers:FILE lines NAME SHA256:... OPTIONS, read
                               again when the file changes; what that peer may
                               do here: streams=N, exits=EXITS,
                               entrances=PORTS, listen=PORTS,
                               key:FILE (sockmux.key),
                               secret:FILE the same at both ends, in place of
                               keys: sockmux-uring keygen --secret makes it,
                               cert:FILE, ca:FILE, name:HOST: certificates of
                               an authority (PEM), and whom they have to be for,
                               rekey:1G a new key after so many bytes sent
  STLS=fsv, STLS=fcl           encrypt, at the end that dials, and that accepts;
                               peers are those of sockmux.peers, unless TLSCONF=
                               names some. Two FIFOs and a serial line need it:
                               fsv at one end, fcl at the other

Without a persistent connection:
  SERVER=PROXY[:-:CLIENTS]     a proxy: http, socks, socks4, socks5, telnet,
                               ftp or ftp://HOST; clients come in by
                               -P[HOST]:PORT
  SERVER=tcprelay://HOST:PORT  plain relay: clients come in by -P[HOST]:PORT
  SERVER=udprelay://HOST:PORT  the same for UDP: -P[HOST]:PORT/udp
                               PORT may be - for that of -P, +N or -N for one
                               so much higher or lower

Entrances, where streams begin at this end:
  PORT=PORT[,PORT]...          PORT is [HOST:]NUMBER[-NUMBER][/udp]
                               with /udp each client address is a flow
  PORT=unix:PATH[?mode=MODE]   a Unix socket. MODE says who may connect: 0600,
                               our own user. To the peer its clients have no
                               address: lists of addresses do not let them in
  with ?peer=NAME behind PORT or PATH clients go to that peer, by its key;
  with ?at=peer behind PORT the other end, a receptor, opens it, and its clients
  come to the exits here (as by ssh -R); its peers file has to permit that:
  listen=PORT,... behind this end's key;
  with ?proxy=accept behind PORT or PATH each client has to send a PROXY header
  (version 1 or 2) first; the address in it counts as the client's, so let
  nobody reach such a port but the balancer

Exits, where streams of the peer go; the first that matches is taken:
  DEST=HOST:PORT[/udp][:CLIENTS]
  SERVER=PROTO://HOST[:PORT][/udp],-in[:-:CLIENTS]
                               PROTO gives the standard port: telnet, http, ...
                               (dns://HOST/udp: 53); not tcprelay, udprelay
                               PORT may be - for that of the peer's entrance,
                               +N or -N for one so much higher or lower
  DEST=unix:PATH[:CLIENTS]     a Unix socket
  with ?proxy=v1 or ?proxy=v2 behind PORT or PATH the server is first sent a
  PROXY header with the client's address and the entrance's
  SERVER=\"exec:COMMAND,-in[:-:CLIENTS]\"
                               each stream is the standard input and output of
                               what /bin/sh -c makes of COMMAND (as by inetd),
                               its errors go to our log. It ends with the
                               stream. In its environment: REMOTE_HOST,
                               REMOTE_PORT, LOCAL_PORT (the entrance's); and of
                               ours PATH, HOME, USER, LOGNAME, SHELL, LANG,
                               LANGUAGE, LC_*, TZ and TMPDIR, nothing else
  SERVER=ftp://HOST[:PORT],-in[:-:CLIENTS]
                               an FTP server with its data connections, passive
                               and active, unencrypted. Both ends have to speak
                               SockMux 1
  SERVER=PROXY,-in[:-:CLIENTS]
                               a proxy: socks (4, 4a and 5; or socks4,
                               socks5 for one alone), http, telnet, ftp
                               (as USER NAME@HOST[:PORT]). It connects where
                               each client asks it to
  SERVER=\"...,-in(OPTION LIST)[:-:CLIENTS]\"
                               for this exit alone, words between blanks (quote
                               '...' what has some): PERMIT= and AUTHORIZER= (in
                               place of the process's), RELIABLE= and MAXIMA=
                               (besides them),
                               TIMEOUT=con,io,ask,lin, +=FILE; and for PROTO,-in
                               SERVER=PROTO://HOST[:PORT]
  PERMIT=PROXIES:TO:CLIENTS    what proxies may reach, for whom; TO is a host
                               list too: -PNUMBER is a port there, *.DOMAIN the
                               name asked for. Without any PERMIT: everything.
                               Loopback, link-local, multicast, metadata of
                               clouds and our own ports only where TO has their
                               address or network: PERMIT=socks:*,127.0.0.1:*
                               Never where peers are accepted, here or at the
                               address that is dialled
                               PROXIES: socks (or socks4, socks5), http, telnet,
                               ftp. At other exits and plain relays, by * or
                               their word (exec, unix, tcprelay for DEST=),
                               CLIENTS alone counts
  AUTHORIZER=\"-list{USER:PASSWORD,...}[:PROXIES]\"
                               users whom socks (5 only) and http let in, and
                               nobody else; several add up. PROXIES: socks or
                               http alone, where there are exits that cannot
                               ask. Keep it in a file (+=FILE) that only
                               you can read: ps shows the command line. After
                               10 wrong ones an address may try one each 6 s
  TCP streams take TCP exits, UDP flows UDP exits. A SockMux 0.3 peer does not
  say which it is: there the first exit that matches is taken, so tell them
  apart by CLIENTS.
  CLIENTS is a host list: [!]HOST[/MASK],...  The last element that matches
  decides. HOST is an address, a name, *, 192.168.[0-31].* or -PNUMBER
  (streams that came in by this port of the peer), or *.DOMAIN (DOMAIN too),
  NAME* (by the name that the client's address has and that has this address),
  or .localnet: this machine and the networks that its interfaces have now.
  At exits also peer=NAME: only for streams of these peers, by their keys.

Who is served at all:
  RELIABLE=CLIENTS             only these: at entrances, where the persistent
                               connection is accepted (-PNUMBER is the port
                               here), and of the peer's streams; several add up.
                               Without it .localnet connects, and all of the
                               peer's streams are taken. The log says what to
                               add for whom it refused, as in
                               RELIABLE=.localnet,192.0.2.7; * is everybody
  MAXIMA=conpch:N,delegated:N  streams at once of one client, of all together
  MAXIMA=service:N             serve N clients, then end; persistent connections
                               where no client comes in. 1: accept once

More:
  TIMEOUT=WHAT:TIME,...        acc (a peer's hello: 15, at a receptor 5), con,
                               lin, io; ours: keepalive,
                               drain (7; what open streams have after SIGTERM:
                               3 s less than until SIGKILL comes, which is 10
                               from docker stop, 30 from Kubernetes, 90 from
                               systemd),
                               hold (30; clients wait so long for a tunnel:
                               longer than the other end drains),
                               ask (30; a client says where it wants to go, or
                               whose it is),
                               udp (180; a silent UDP flow is then forgotten),
                               resume (60; streams wait so long for the next
                               connection when theirs broke; 0: not at all),
                               silence (no effect: see keepalive)
                               seconds or 5m, 2h, 1d; 0 is never
  SOXCONF=WHAT[:VALUE],...     packsize:SIZE (128 to 16k), noconndata, crypt:no,
                               nodelay (as it is anyway);
                               ours: protocol:1|0.3 (1 where the peer knows it),
                               congestion:auto|system|NAME,
                               bulk:auto|copy|splice,
                               udpflows:N (UDP flows at once: 4096; 1 to 16000),
                               ports:FIRST-LAST (where ports are opened for FTP
                               and SOCKS; else the kernel chooses),
                               down:hold|refuse|close (while no tunnel is up:
                               clients wait, are reset, or find the port closed,
                               so that balancers see it)
  +=FILE                       read options and parameters, one a line

Examples, one line for each of two hosts X and Y:
  demo, everything in one process over loopback
    sockmux-uring demo
  encrypted, each end by its key; each is given the other's fingerprint
    X$ sockmux-uring keygen
    Y$ sockmux-uring keygen
    X$ sockmux-uring -P:9000 PORT=127.0.0.1:15432 TLSCONF=peer:SHA256:...
    Y$ sockmux-uring SERVER=sockmux://hostX:9000 DEST=127.0.0.1:5432 \\
                     TLSCONF=peer:SHA256:...
  both ways: either host reaches the telnet server beside the other
    X$ sockmux-uring SERVER=sockmux -PhostX:9000 PORT=9023 \\
                     SERVER=\"telnet://hostX,-in\"
    Y$ sockmux-uring SERVER=sockmux://hostX:9000 PORT=9023 \\
                     SERVER=\"telnet://hostY,-in\"
  one way
    X$ sockmux-uring SERVER=sockmux -PhostX:9000 SERVER=\"telnet://hostX,-in\"
    Y$ sockmux-uring SERVER=sockmux://hostX:9000 PORT=hostY:9023
  any TCP service
    X$ sockmux-uring SERVER=sockmux://hostY:9000 PORT=hostX:111
    Y$ sockmux-uring SERVER=sockmux -PhostY:9000 DEST=hostT:111
  UDP over TCP: a name server
    X$ sockmux-uring SERVER=sockmux://hostY:9000 PORT=hostX:53/udp
    Y$ sockmux-uring SERVER=sockmux -PhostY:9000 DEST=hostU:53/udp
  several ports, each with a server of its own
    X$ sockmux-uring -P:9000 PORT=8023,8080
    Y$ sockmux-uring SERVER=sockmux://hostX:9000 \\
                     SERVER=telnet://hostT,-in:-:-P8023 \\
                     SERVER=http://hostW,-in:-:-P8080
  a browser's or curl's way out: http and SOCKS proxies
    X$ sockmux-uring -P:9000 PORT=127.0.0.1:8080,127.0.0.1:1080
    Y$ sockmux-uring SERVER=sockmux://hostX:9000 \\
                     SERVER=http,-in:-:-P8080 SERVER=socks,-in:-:-P1080
  over two FIFOs (mkfifo com0 com1)
    X$ sockmux-uring SERVER=sockmux:commin@com0 SERVER=sockmux:commout@com1 \\
                     PORT=8022
    Y$ sockmux-uring SERVER=sockmux:commin@com1 SERVER=sockmux:commout@com0 \\
                     DEST=127.0.0.1:22
  over a serial line
    X$ sockmux-uring \"SERVER=sockmux:comm@/dev/ttyUSB0?baud=921600\" PORT=8022
    Y$ sockmux-uring \"SERVER=sockmux:comm@/dev/ttyS1?baud=921600\" \\
                     DEST=127.0.0.1:22
  through a command, which starts the other end too
    X$ sockmux-uring PORT=5432 \\
           SERVER=\"sockmux:proc@ssh hostY sockmux-uring -Fsockmux -Q5432\"
  no tunnel: whoever connects to port 8080 is joined with hostW
    X$ sockmux-uring -P:8080 SERVER=tcprelay://hostW:80
  no tunnel, UDP
    X$ sockmux-uring -P:53/udp SERVER=udprelay://hostU:53

Exit codes:
  0    done: drained after a signal, or --check, --help, --version
  1    failed while running
  2    the command line is wrong
  3    could not be set up: an address is in use, io_uring is refused, ...
  101  panicked: a fault of the program, logged; please report it

With systemd (Type=notify): ready when the ports are open, or when the tunnel is
up (--ready tunnel); a line of status; WatchdogSec= is answered by the loop.

Asking a running process, at its control socket:
  sockmux-uring status, streams
                   tunnels, entrances and totals; each stream with its bytes;
                   with --json for programs
  sockmux-uring kill tunnel:N, stream:N or peer:NAME
                   end it; numbers are those of the log
  sockmux-uring drain
                   as SIGTERM, and a second one changes nothing

Signals:
  SIGTERM, SIGINT, SIGQUIT
                   take no new streams, let the open ones end (TIMEOUT=drain),
                   then exit; a second one exits at once
  SIGUSR1          logs tunnels, streams and bytes
  SIGHUP           opens the access log anew (--access-log); nothing else is
                   reloaded. The rest (SIGUSR2, SIGALRM, ...) is logged";
