//! An authority of certificates with any dates, by the openssl program.

use std::fs;
use std::process::Command;

use super::keys::Keys;
use super::services::{program, run};

/// A time that is over.
pub const PAST: &str = "20210101000000Z";
/// One that has not come.
pub const FUTURE: &str = "20910101000000Z";

/// Signs certificates into a folder of keys. `ca.pem` there is its own.
pub struct Authority<'k> {
    keys: &'k Keys,
}

impl<'k> Authority<'k> {
    /// With a certificate that counts.
    pub fn new(keys: &'k Keys) -> Authority<'k> {
        let folder = keys.path(".");
        let folder = folder.display();
        let config = format!(
            "[ca]\ndefault_ca=all\n[all]\ndatabase={folder}/index\nnew_certs_dir={folder}\n\
             rand_serial=yes\nunique_subject=no\ndefault_md=default\npolicy=any\n\
             copy_extensions=copy\n[any]\ncommonName=supplied\n"
        );
        fs::write(keys.path("ca.cnf"), config).expect("a file");
        fs::write(keys.path("index"), "").expect("a file");
        keys.make("ca");
        let authority = Authority { keys };
        authority.signs_itself("ca", FUTURE);
        authority
    }

    /// Makes its own certificate, once more, which counts until this time.
    pub fn signs_itself(&self, name: &str, until: &str) {
        self.request("ca", name, &["basicConstraints=critical,CA:TRUE"]);
        self.sign(name, until, &["-selfsign"]);
    }

    /// Makes a certificate for the key of this name, at 127.0.0.1, which counts until this time.
    pub fn signs(&self, name: &str, until: &str) {
        let names = format!("subjectAltName=DNS:{name},IP:127.0.0.1");
        self.request(name, name, &[&names, "extendedKeyUsage=serverAuth,clientAuth"]);
        let own = self.file("ca", "pem");
        self.sign(name, until, &["-cert", &own]);
    }

    fn request(&self, key: &str, name: &str, extensions: &[&str]) {
        let mut openssl = Command::new(program("openssl"));
        openssl.args(["req", "-new", "-subj", &format!("/CN={key}")]);
        openssl.arg("-key").arg(self.keys.path(key)).args(["-out", &self.file(name, "csr")]);
        run(openssl.args(extensions.iter().flat_map(|extension| ["-addext", extension])));
    }

    fn sign(&self, name: &str, until: &str, by: &[&str]) {
        let mut openssl = Command::new(program("openssl"));
        openssl.args(["ca", "-batch", "-notext", "-config"]).arg(self.keys.path("ca.cnf"));
        openssl.args(["-startdate", "20200101000000Z", "-enddate", until]).args(by);
        openssl.arg("-keyfile").arg(self.keys.path("ca"));
        run(openssl.args(["-in", &self.file(name, "csr"), "-out", &self.file(name, "pem")]));
    }

    fn file(&self, name: &str, extension: &str) -> String {
        self.keys.path(&format!("{name}.{extension}")).display().to_string()
    }

    /// The words of an end with the key and the certificate of this name, and this certificate of the authority.
    pub fn words(&self, own: &str, authority: &str) -> String {
        let key = self.keys.path(own).display().to_string();
        let [own, authority] = [own, authority].map(|name| self.file(name, "pem"));
        format!("TLSCONF=key:{key},cert:{own},ca:{authority}")
    }
}
