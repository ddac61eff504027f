//! vsftpd that gives out a directory, takes files into another one, and would speak TLS.

use std::fs::{Permissions, create_dir, set_permissions, write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::{Service, free_address, new_certificate, new_dir, program, run};

/// The user that it admits, with a password of this server's own.
pub const USER: &str = "anonymous";

/// A server and its password.
pub struct Ftpd {
    service: Service,
    password: String,
}

impl Ftpd {
    /// Starts a server.
    pub fn start() -> Ftpd {
        let (dir, address) = (new_dir(), free_address());
        let password = format!("{:016x}", fastrand::u64(..));
        write(dir.path().join("passwords"), format!("{password}\n")).expect("written");
        // The server has only a user's rights, so its files have to be accessible to that.
        for (name, mode) in
            [("", 0o711), ("files", 0o755), ("files/taken", 0o777), ("empty", 0o755)]
        {
            let path = dir.path().join(name);
            if !name.is_empty() {
                create_dir(&path).expect("a new directory");
            }
            set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
        }
        new_certificate(dir.path());
        let path = dir.path().display();
        // Without root it cannot change the user.
        let as_other = run(Command::new("id").arg("-u")).trim() == "0";
        let launcher = if as_other { "NO" } else { "YES" };
        let conf = format!(
            "listen=YES
background=NO
listen_address={ip}
listen_port={port}
run_as_launching_user={launcher}
anonymous_enable=YES
local_enable=NO
secure_email_list_enable=YES
email_password_file={path}/passwords
anon_root={path}/files
secure_chroot_dir={path}/empty
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_umask=022
anon_world_readable_only=NO
xferlog_enable=NO
seccomp_sandbox=NO
ssl_enable=YES
allow_anon_ssl=YES
force_local_logins_ssl=NO
force_local_data_ssl=NO
rsa_cert_file={path}/cert.pem
rsa_private_key_file={path}/key.pem
",
            ip = address.ip(),
            port = address.port(),
        );
        let conf_path = dir.path().join("vsftpd.conf");
        write(&conf_path, conf).expect("written");
        let mut server = Command::new(program("vsftpd"));
        server.arg(&conf_path);
        Ftpd { service: Service::start("vsftpd", server, address, dir), password }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// The directory of downloads.
    pub fn files(&self) -> PathBuf {
        self.service.dir().join("files")
    }

    /// Where in [`Ftpd::files`] it takes files.
    pub fn taken(&self) -> PathBuf {
        self.files().join("taken")
    }

    /// The password of [`USER`].
    pub fn password(&self) -> &str {
        &self.password
    }
}
