//! Tags: list those that begin alike, and remove one.

use reqwest::header::{HeaderValue, LINK};
use reqwest::{Method, Url};
use serde::Deserialize;

use crate::client::Client;
use crate::error::{Operation, RegistryError};
use crate::exchange::{Call, read_body};
use crate::manifest::is_absent;
use crate::reference::Reference;
use crate::retry::{Backoff, Trouble};
use crate::scope::Scope;
use crate::token::Need;

/// Tags that are asked for at once.
const PAGE: &str = "1000";
/// Pages that are read at most.
const MAX_PAGES: usize = 100;
/// Longest page in bytes.
const MAX_PAGE: usize = 4 << 20;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// Lists the tags of a repository that begin with `prefix`, sorted; none for a repository that
    /// does not exist. Registries that sort their tags are asked for no others.
    pub async fn tags(
        &self,
        repository: &Reference,
        prefix: &str,
    ) -> Result<Vec<String>, RegistryError> {
        let host = self.host_of(repository)?;
        let operation = Operation::new("list the tags of", repository.name(), &host.name);
        let scopes = [Scope::pull(repository.repository())];
        let need = Need {
            operation: &operation,
            host: &host,
            scopes: &scopes,
        };
        let path = format!("{}/tags/list", repository.repository());
        let mut url = host.url(&path, self.config().connect_timeout).await?;
        url.query_pairs_mut()
            .append_pair("n", PAGE)
            .append_pair("last", prefix);
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some((tags, next)) = self.tags_page(need, &url).await? else {
                break;
            };
            let is_past = |tag: &String| tag.as_str() > prefix && !tag.starts_with(prefix);
            let is_last = tags.is_sorted() && tags.last().is_some_and(is_past);
            found.extend(tags.into_iter().filter(|tag| tag.starts_with(prefix)));
            match next {
                Some(next) if !is_last => url = next,
                _ => break,
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Returns a page of tags and where the next one is; nothing if there is no such repository.
    async fn tags_page(
        &self,
        need: Need<'_>,
        url: &Url,
    ) -> Result<Option<(Vec<String>, Option<Url>)>, RegistryError> {
        let mut backoff = Backoff::new(self.config());
        loop {
            match self.tags_attempt(need, url).await {
                Ok(page) => return Ok(Some(page)),
                Err(Trouble::Final(error)) if is_absent(&error) => return Ok(None),
                Err(trouble) => backoff.pause(trouble).await?,
            }
        }
    }

    async fn tags_attempt(
        &self,
        need: Need<'_>,
        url: &Url,
    ) -> Result<(Vec<String>, Option<Url>), Trouble> {
        let answer = self
            .attempt(&Call::new(need, Method::GET, url.clone()))
            .await?;
        let next = next_page(url, answer.response.headers().get(LINK));
        let status = answer.response.status();
        let operation = need.operation;
        let body = read_body(answer.response, MAX_PAGE, operation, self.config()).await?;
        let page: Page = serde_json::from_slice(&body)
            .map_err(|error| RegistryError::unusable(operation, status, error.to_string()))?;
        Ok((page.tags.unwrap_or_default(), next))
    }

    /// Removes a tag, as far as the registry lets one: a manifest that has other tags, too, may
    /// lose them all.
    pub async fn remove_tag(&self, target: &Reference) -> Result<(), RegistryError> {
        let found = self.resolve(target).await?;
        let host = self.host_of(target)?;
        let operation = Operation::new("remove manifest", target.to_string(), &host.name);
        let scopes = [Scope::push(target.repository())];
        let need = Need {
            operation: &operation,
            host: &host,
            scopes: &scopes,
        };
        let path = format!("{}/manifests/{}", target.repository(), found.digest);
        let url = host.url(&path, self.config().connect_timeout).await?;
        self.call(&Call::new(need, Method::DELETE, url)).await?;
        Ok(())
    }
}

/// Returns the page that a `Link` header says is next, if it is at the same host.
fn next_page(url: &Url, link: Option<&HeaderValue>) -> Option<Url> {
    let text = link?.to_str().ok()?;
    let (target, relation) = text.split_once('>')?;
    let target = target.trim_start().strip_prefix('<')?;
    if !relation.replace('"', "").contains("rel=next") {
        return None;
    }
    let next = url.join(target).ok()?;
    (next.origin() == url.origin()).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_at_the_same_host() {
        let url: Url = "https://h/v2/a/tags/list?n=2".parse().unwrap();
        let next = |text: &str| next_page(&url, Some(&text.parse().unwrap())).map(String::from);
        assert_eq!(
            next(r#"</v2/a/tags/list?n=2&last=x>; rel="next""#).as_deref(),
            Some("https://h/v2/a/tags/list?n=2&last=x")
        );
        for text in ["<https://other/v2>; rel=\"next\"", "</v2>; rel=prev", "?"] {
            assert_eq!(next(text), None, "{text}");
        }
    }
}
