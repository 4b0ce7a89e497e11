//! Commands of the operator to a whole mesh: signed, for one mesh, once, and not for long.
//!
//! Pure. What a command says is its body, which this module does not read; who may say it is
//! the holder of the operator's key, an Ed25519 key that no node and no CA needs. A command
//! travels as bytes that anyone may carry: a relay can neither change nor repeat it.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::ED25519;
use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair;
use ring::signature::UnparsedPublicKey;
use x509_parser::pem::parse_x509_pem;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The trust domain of the mesh it is for; at most 255 bytes.
    pub mesh: String,
    /// Rises with every command: milliseconds since 1970 at signing, or one more than the last
    /// where that is more.
    pub sequence: u64,
    /// From when on it is void, in seconds since 1970.
    pub not_after: u64,
    /// What is to be done; at most [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
}

/// Why a command cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsignable {
    /// The name of the mesh is too long.
    #[error("the trust domain is longer than 255 bytes")]
    Mesh,
    /// The body is too long.
    #[error("a command has at most {MAX_BODY} bytes; say less at once")]
    Body,
}

/// Why a command is not obeyed; the [`Gate`] is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes are no command of a version known here.
    #[error("the bytes are no operator's command of a version known here")]
    Form,
    /// The signature is not of this mesh's operator.
    #[error("the command is not signed by the operator of this mesh")]
    Signature,
    /// The command is for another mesh.
    #[error("the command is for another mesh")]
    OtherMesh,
    /// It came too late.
    #[error("the command has expired; check the clocks and give it again")]
    Expired,
    /// It would be good for too long, or was signed in the future.
    #[error("the command is dated too far ahead; check the clock it was signed by")]
    Ahead,
    /// This command, or a later one, was obeyed before.
    #[error("this command or a later one was obeyed before")]
    Replayed,
}

/// Why a text holds no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text holds no PEM Ed25519 {0} key")]
pub struct BadKey(&'static str);

/// The operator's private key.
pub struct OperatorKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

/// The operator's public key, which every node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorPublic([u8; 32]);

/// Lets each command of one operator to one mesh pass once.
#[derive(Clone, Debug)]
pub struct Gate {
    mesh: String,
    key: OperatorPublic,
    last: u64,
}

impl Command {
    /// Returns the command's bytes under the operator's signature.
    pub fn sign(&self, key: &OperatorKey) -> Result<Vec<u8>, Unsignable> {
        let mesh_len = u8::try_from(self.mesh.len()).map_err(|_long| Unsignable::Mesh)?;
        if self.body.len() > MAX_BODY {
            return Err(Unsignable::Body);
        }
        let mut bytes = vec![VERSION, mesh_len];
        bytes.extend(self.mesh.as_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.not_after.to_be_bytes());
        bytes.extend((self.body.len() as u32).to_be_bytes());
        bytes.extend(&self.body);
        let signature = key.pair.sign(&signed(&bytes));
        bytes.extend(signature.as_ref());
        Ok(bytes)
    }

    /// Reads what stands before the signature; `None` for anything but exactly one command.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION, mesh_len], rest) = bytes.split_first_chunk::<2>()? else { return None };
        let (mesh, rest) = rest.split_at_checked(usize::from(mesh_len))?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (not_after, rest) = rest.split_first_chunk()?;
        let (body_len, body) = rest.split_first_chunk()?;
        let mesh = std::str::from_utf8(mesh).ok()?.to_owned();
        let whole = body.len() <= MAX_BODY && body.len() == u32::from_be_bytes(*body_len) as usize;
        whole.then(|| Self {
            mesh,
            sequence: u64::from_be_bytes(*sequence),
            not_after: u64::from_be_bytes(*not_after),
            body: body.to_vec(),
        })
    }
}

impl OperatorKey {
    /// Makes the key of 32 bytes that nobody can guess.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, BadKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_ring| BadKey("private"))?;
        Ok(Self { seed, pair })
    }

    /// Reads a key from a PKCS #8 PEM text, as [`Self::to_pem`] and OpenSSL write it.
    pub fn from_pem(text: &str) -> Result<Self, BadKey> {
        let bad = BadKey("private");
        let der = der_of(text, "PRIVATE KEY").ok_or(bad)?;
        Self::from_seed(der.strip_prefix(PRIVATE).and_then(|it| it.try_into().ok()).ok_or(bad)?)
    }

    /// Returns the key as a PKCS #8 PEM text: a secret.
    pub fn to_pem(&self) -> String {
        pem_of(PRIVATE, &self.seed, "PRIVATE KEY")
    }

    /// Returns the public part.
    pub fn public(&self) -> OperatorPublic {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        OperatorPublic(bytes)
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seed never reaches a log.
        f.debug_struct("OperatorKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

impl OperatorPublic {
    /// Reads a key from a PEM text, as [`Self::to_pem`] and OpenSSL write it.
    pub fn from_pem(text: &str) -> Result<Self, BadKey> {
        let der = der_of(text, "PUBLIC KEY");
        let key = der.as_deref().and_then(|it| it.strip_prefix(PUBLIC)?.try_into().ok());
        key.map(Self).ok_or(BadKey("public"))
    }

    /// Returns the key as a PEM text.
    pub fn to_pem(&self) -> String {
        pem_of(PUBLIC, &self.0, "PUBLIC KEY")
    }
}

impl Gate {
    /// Begins after the command numbered `last`, which was kept since; zero for none.
    pub fn new(mesh: &str, key: OperatorPublic, last: u64) -> Self {
        Self { mesh: mesh.to_owned(), key, last }
    }

    /// Returns the number of the latest command obeyed; keep it over restarts.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Reads and checks a command at the wall time `now`, since 1970. One that is returned is
    /// to be obeyed, and is refused from then on.
    pub fn admit(&mut self, now: Duration, bytes: &[u8]) -> Result<Command, Refused> {
        let command = self.verified(bytes)?;
        let ahead = u64::try_from((now + SKEW).as_millis()).unwrap_or(u64::MAX);
        if command.sequence > ahead || command.not_after > (now + SKEW + LIFE_MAX).as_secs() {
            return Err(Refused::Ahead);
        }
        if command.not_after <= now.as_secs() {
            return Err(Refused::Expired);
        }
        self.pass(command)
    }

    /// As [`Self::admit`], of a command that another node admitted: it stands until a later
    /// one, however long ago that was.
    pub fn learn(&mut self, bytes: &[u8]) -> Result<Command, Refused> {
        let command = self.verified(bytes)?;
        self.pass(command)
    }

    fn verified(&self, bytes: &[u8]) -> Result<Command, Refused> {
        let (text, signature) = bytes.split_last_chunk::<SIGNATURE>().ok_or(Refused::Form)?;
        if bytes.len() > MAX_COMMAND {
            return Err(Refused::Form);
        }
        let key = UnparsedPublicKey::new(&ED25519, self.key.0);
        key.verify(&signed(text), signature).map_err(|_ring| Refused::Signature)?;
        let command = Command::read(text).ok_or(Refused::Form)?;
        if command.mesh == self.mesh { Ok(command) } else { Err(Refused::OtherMesh) }
    }

    fn pass(&mut self, command: Command) -> Result<Command, Refused> {
        if command.sequence <= self.last {
            return Err(Refused::Replayed);
        }
        self.last = command.sequence;
        Ok(command)
    }
}

/// Returns what is signed: no other use of the key can be taken for a command.
fn signed(bytes: &[u8]) -> Vec<u8> {
    [CONTEXT, bytes].concat()
}

fn der_of(text: &str, label: &str) -> Option<Vec<u8>> {
    if text.len() > MAX_PEM {
        return None;
    }
    let (_rest, pem) = parse_x509_pem(text.as_bytes()).ok()?;
    (pem.label == label).then_some(pem.contents)
}

fn pem_of(prefix: &[u8], key: &[u8], label: &str) -> String {
    let body = STANDARD.encode([prefix, key].concat());
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// The longest body, in bytes: an epoch of configuration, not a file.
pub const MAX_BODY: usize = 16 * 1024;

/// How long before its end a command may be signed: long enough for a node that restarts,
/// too short to find one in an old backup and use it.
pub const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How far the operator's clock may be ahead. A number beyond it would lock out all commands
/// until that time.
const SKEW: Duration = Duration::from_secs(600);

const VERSION: u8 = 1;

const SIGNATURE: usize = 64;

/// The longest command: head, name, numbers, body and signature.
pub const MAX_COMMAND: usize = 2 + 255 + 8 + 8 + 4 + MAX_BODY + SIGNATURE;

const CONTEXT: &[u8] = b"portolan operator command\0";

/// A key in PEM has about 120 bytes; comments before it are allowed.
const MAX_PEM: usize = 4096;

/// What stands before the 32 bytes of an Ed25519 key in DER (RFC 8410).
const PRIVATE: &[u8] = &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const PUBLIC: &[u8] = &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn key() -> OperatorKey {
        OperatorKey::from_seed([7; 32]).unwrap()
    }

    fn gate() -> Gate {
        Gate::new("mesh.example", key().public(), 0)
    }

    fn command(sequence: u64) -> Command {
        let not_after = NOW.as_secs() + 60;
        Command { mesh: "mesh.example".into(), sequence, not_after, body: b"drain fra-1".into() }
    }

    #[track_caller]
    fn check_refused(command: &Command, why: Refused) {
        let mut gate = gate();
        assert_eq!(gate.admit(NOW, &command.sign(&key()).unwrap()), Err(why));
        assert_eq!(gate.last(), 0);
    }

    #[test]
    fn a_command_passes_once_and_none_before_it_passes_after() {
        let mut gate = gate();
        let bytes = command(5).sign(&key()).unwrap();
        assert_eq!(gate.admit(NOW, &bytes), Ok(command(5)));
        assert_eq!(gate.admit(NOW, &bytes), Err(Refused::Replayed));
        assert_eq!(gate.admit(NOW, &command(4).sign(&key()).unwrap()), Err(Refused::Replayed));
        // Nor after a restart that kept the number.
        let mut again = Gate::new("mesh.example", key().public(), gate.last());
        assert_eq!(again.admit(NOW, &bytes), Err(Refused::Replayed));
        assert_eq!(again.admit(NOW, &command(6).sign(&key()).unwrap()), Ok(command(6)));
    }

    #[test]
    fn what_another_node_admitted_stands_until_a_later_one() {
        let mut gate = gate();
        let old = Command { not_after: 1, ..command(5) };
        assert_eq!(gate.learn(&old.sign(&key()).unwrap()), Ok(old.clone()));
        assert_eq!(gate.learn(&command(4).sign(&key()).unwrap()), Err(Refused::Replayed));
        let other = OperatorKey::from_seed([8; 32]).unwrap();
        assert_eq!(gate.learn(&command(9).sign(&other).unwrap()), Err(Refused::Signature));
        assert_eq!(gate.last(), 5);
    }

    #[test]
    fn other_meshes_other_keys_and_other_times_are_refused() {
        check_refused(&Command { mesh: "mesh.exampl".into(), ..command(1) }, Refused::OtherMesh);
        check_refused(&Command { not_after: NOW.as_secs(), ..command(1) }, Refused::Expired);
        let late = (NOW + SKEW + LIFE_MAX).as_secs();
        check_refused(&Command { not_after: late + 1, ..command(1) }, Refused::Ahead);
        let ahead = (NOW + SKEW).as_millis() as u64;
        check_refused(&command(ahead + 1), Refused::Ahead);
        let at_the_limits = Command { not_after: late, ..command(ahead) };
        gate().admit(NOW, &at_the_limits.sign(&key()).unwrap()).unwrap();
        let other = OperatorKey::from_seed([8; 32]).unwrap();
        let bytes = command(1).sign(&other).unwrap();
        assert_eq!(gate().admit(NOW, &bytes), Err(Refused::Signature));
    }

    #[test]
    fn what_is_too_long_is_not_signed() {
        let longest = Command { body: vec![0; MAX_BODY], mesh: "m".repeat(255), ..command(1) };
        assert_eq!(longest.sign(&key()).unwrap().len(), MAX_COMMAND);
        let body = Command { body: vec![0; MAX_BODY + 1], ..command(1) };
        assert_eq!(body.sign(&key()), Err(Unsignable::Body));
        let mesh = Command { mesh: "m".repeat(256), ..command(1) };
        assert_eq!(mesh.sign(&key()), Err(Unsignable::Mesh));
    }

    #[test]
    fn keys_read_back_and_are_not_taken_for_each_other() {
        let (private, public) = (key().to_pem(), key().public().to_pem());
        assert_eq!(OperatorKey::from_pem(&private).unwrap().public(), key().public());
        assert_eq!(OperatorPublic::from_pem(&public), Ok(key().public()));
        assert!(OperatorKey::from_pem(&public).is_err());
        assert!(OperatorPublic::from_pem(&private).is_err());
        assert!(!format!("{:?}", key()).contains("seed"));
    }

    proptest! {
        #[test]
        fn every_command_reads_back_and_no_changed_one_passes(
            mesh in "[a-z.]{1,20}",
            sequence in 1..=NOW.as_millis() as u64,
            life in 1..LIFE_MAX.as_secs(),
            body in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            flip in 1..=255u8,
        ) {
            let not_after = NOW.as_secs() + life;
            let command = Command { mesh: mesh.clone(), sequence, not_after, body };
            let mut bytes = command.sign(&key()).unwrap();
            let mut gate = Gate::new(&mesh, key().public(), 0);
            prop_assert_eq!(gate.clone().admit(NOW, &bytes), Ok(command));
            prop_assert!(gate.clone().admit(NOW, &bytes[..bytes.len() - 1]).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(gate.admit(NOW, &bytes), Err(Refused::Signature));
            prop_assert_eq!(gate.last(), 0);
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400), text in ".{0,300}") {
            prop_assert!(gate().admit(NOW, &bytes).is_err());
            // Also where the signature is good and only the rest is not.
            let mut signed_garbage = bytes.clone();
            signed_garbage.extend(key().pair.sign(&signed(&bytes)).as_ref());
            prop_assert!(gate().admit(NOW, &signed_garbage).is_err());
            prop_assert!(OperatorKey::from_pem(&text).is_err());
            prop_assert!(OperatorPublic::from_pem(&text).is_err());
        }

        #[test]
        fn numbers_that_pass_rise(sequences in prop::collection::vec(1..50u64, 0..40)) {
            let mut gate = gate();
            let mut last = 0;
            for sequence in sequences {
                let passed = gate.admit(NOW, &command(sequence).sign(&key()).unwrap()).is_ok();
                prop_assert_eq!(passed, sequence > last);
                last = last.max(sequence);
                prop_assert_eq!(gate.last(), last);
            }
        }
    }
}
