//! Blobs: push.
//!
//! What the registry has is not sent; what another repository of the same registry has is
//! mounted, also what this client has just sent there; the rest is uploaded in one stream. Two tasks never upload the same blob to the same
//! repository at a time: the second finds what the first has sent. An upload that broke is started
//! anew, after asking whether it had arrived after all.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use kiln_graph::Descriptor;
use reqwest::{Method, StatusCode, Url};
use tokio::io::AsyncRead;

use crate::client::Client;
use crate::error::RegistryError;
use crate::exchange::Call;
use crate::manifest::is_refusal;
use crate::pull::{blob_operation, blob_path};
use crate::reference::Reference;
use crate::retry::Backoff;
use crate::scope::Scope;
use crate::token::Need;
use crate::upload::Upload;

/// Gives the bytes of a blob, again if need be.
pub trait BlobSource: Send + Sync {
    /// What the bytes are read from.
    type Reader: AsyncRead + Send + Unpin + 'static;

    /// Opens the blob at its start.
    fn open(&self) -> impl Future<Output = io::Result<Self::Reader>> + Send;
}

impl BlobSource for Bytes {
    type Reader = io::Cursor<Self>;

    async fn open(&self) -> io::Result<Self::Reader> {
        Ok(io::Cursor::new(self.clone()))
    }
}

impl BlobSource for PathBuf {
    type Reader = tokio::fs::File;

    async fn open(&self) -> io::Result<Self::Reader> {
        tokio::fs::File::open(self).await
    }
}

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry had it in another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

impl Client {
    /// Pushes a blob to the target's repository. `mount_from` names a repository that may have
    /// it; it is of use only at the same registry. `progress` is told how many bytes have been
    /// sent, and starts again from 0 if an upload has to be repeated.
    pub async fn push_blob(
        &self,
        target: &Reference,
        descriptor: &Descriptor,
        source: impl BlobSource,
        mount_from: Option<&Reference>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Pushed, RegistryError> {
        let host = self.host_of(target)?;
        let known = self.pushed_to(&host.name, descriptor.digest);
        let mount_from = mount_from
            .filter(|from| from.host() == target.host())
            .or(known.as_ref());
        let pushed = self
            .push_or_mount(target, descriptor, source, mount_from, progress)
            .await?;
        self.note_pushed(&host.name, descriptor.digest, target);
        Ok(pushed)
    }

    async fn push_or_mount(
        &self,
        target: &Reference,
        descriptor: &Descriptor,
        source: impl BlobSource,
        mount_from: Option<&Reference>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Pushed, RegistryError> {
        let host = self.host_of(target)?;
        let operation = blob_operation("push blob", target, descriptor, &host);
        let path = blob_path(target, descriptor);
        let lock = self.upload_lock(format!("{}/{path}", host.name));
        let _guard = lock.lock().await;
        let mount_from = mount_from.filter(|from| from.repository() != target.repository());
        let target_scope = Scope::push(target.repository());
        let scopes = [target_scope.clone()];
        let need = Need {
            operation: &operation,
            host: &host,
            scopes: &scopes,
        };
        if self.head_blob(need, &path, descriptor.size).await? {
            return Ok(Pushed::Existed);
        }
        let upload = Upload {
            need,
            repository: target.repository(),
            path: &path,
            descriptor,
            progress,
        };
        let first = match mount_from {
            Some(from) => {
                // Who may not pull from there may still push here.
                let scopes = [target_scope, Scope::pull(from.repository())];
                let need = Need {
                    scopes: &scopes,
                    ..need
                };
                match self.mount(&Upload { need, ..upload }, from).await? {
                    Mount::Done => return Ok(Pushed::Mounted),
                    Mount::Refused(location) => location,
                }
            }
            None => None,
        };
        self.upload(&upload, &source, first).await?;
        Ok(Pushed::Uploaded)
    }

    /// Asks the registry to take the blob from another repository. Whatever it says but yes, the
    /// blob can be uploaded.
    async fn mount(&self, upload: &Upload<'_>, from: &Reference) -> Result<Mount, RegistryError> {
        let mut url = self.uploads_url(upload).await?;
        url.query_pairs_mut()
            .append_pair("mount", &upload.descriptor.digest.to_string())
            .append_pair("from", from.repository());
        let call = Call::new(upload.need, Method::POST, url);
        let answer = match self.call(&call).await {
            Ok(answer) => answer,
            Err(error) if is_refusal(&error) => {
                tracing::debug!(%error, "the blob is not mounted");
                return Ok(Mount::Refused(None));
            }
            Err(error) => return Err(error),
        };
        if answer.response.status() == StatusCode::CREATED {
            return Ok(Mount::Done);
        }
        Ok(Mount::Refused(
            self.location(&call.url, &answer.response).ok(),
        ))
    }

    async fn upload(
        &self,
        upload: &Upload<'_>,
        source: &impl BlobSource,
        mut first: Option<Url>,
    ) -> Result<(), RegistryError> {
        let mut backoff = Backoff::new(self.config());
        let mut n_refused = 0;
        loop {
            let location = match first.take() {
                Some(location) => location,
                None => self.start_upload(upload).await?,
            };
            let Err(trouble) = self
                .send_blob(upload, source, location, &mut n_refused)
                .await
            else {
                return Ok(());
            };
            backoff.pause(trouble).await?;
            // The blob may have arrived, and only the answer got lost.
            let size = upload.descriptor.size;
            if self.head_blob(upload.need, upload.path, size).await? {
                return Ok(());
            }
        }
    }

    async fn start_upload(&self, upload: &Upload<'_>) -> Result<Url, RegistryError> {
        let url = self.uploads_url(upload).await?;
        let call = Call::new(upload.need, Method::POST, url);
        let answer = self.call(&call).await?;
        let status = answer.response.status();
        let location = self.location(&call.url, &answer.response);
        location.map_err(|text| RegistryError::unusable(upload.need.operation, status, text))
    }

    async fn uploads_url(&self, upload: &Upload<'_>) -> Result<Url, RegistryError> {
        let path = format!("{}/blobs/uploads/", upload.repository);
        upload
            .need
            .host
            .url(&path, self.config().connect_timeout)
            .await
    }
}

/// What became of a mount.
enum Mount {
    Done,
    /// The registry may have opened an upload instead.
    Refused(Option<Url>),
}
