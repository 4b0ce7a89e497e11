//! How nodes come by their names: the CA's folder, its service, and who asks there.
//!
//! A node asks over TLS 1.3, once with a join token, pinned to the fingerprint of the CA, and
//! from then on with the certificate it has. Its key never leaves it. What is decided is
//! decided in [`crate::ca`].

pub mod client;
mod folder;
mod message;
mod serve;

pub use self::folder::{Folder, FolderError, Rotation};
pub use self::message::{Enroll, Named, Renew, Standing};
pub use self::serve::{Service, serve};
