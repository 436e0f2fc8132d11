//! Answering challenges: passwords, and tokens from token servers.
//!
//! Docker's token specification (GET, with Basic) and its OAuth 2 twin (POST, with an identity
//! token). A token server is named by a registry's challenge and gets that registry's credentials
//! and no others; it is spoken to in plain HTTP only where it is on this machine, listed as
//! insecure, or the registry's own host. Its redirects are not followed.

use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, InvalidHeaderValue};
use reqwest::{Method, Request, Url};
use serde::Deserialize;
use serde_json::Value;

use crate::address;
use crate::auth::{Token, basic_header, bearer_header};
use crate::challenge::{Bearer, Challenge};
use crate::client::Client;
use crate::credentials::Login;
use crate::error::{Operation, RegistryError};
use crate::exchange::read_body;
use crate::host::{Host, may_be_plain};
use crate::retry::Trouble;
use crate::scope::{self, Scope};

const MAX_BODY: usize = 1 << 20;
const CLIENT_ID: &str = "kiln";

/// What a token server answers.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<Value>,
}

/// One request that needs an answer to a challenge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need<'a> {
    pub(crate) operation: &'a Arc<Operation>,
    pub(crate) host: &'a Host,
    pub(crate) scopes: &'a [Scope],
}

impl Client {
    /// Returns the `Authorization` for a challenge, other than the one that was refused; `None`
    /// if there is none.
    pub(crate) async fn answer(
        &self,
        need: Need<'_>,
        challenge: &Challenge,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Trouble> {
        let login = self.login_for(need).await?;
        let broken = |_: InvalidHeaderValue| {
            let what = format!("use the credentials for `{}`", need.host.name);
            RegistryError::setup(what, "they hold control characters")
        };
        let header = match (login, challenge) {
            (Some(Login::Access(token)), _) => bearer_header(&token).map_err(broken)?,
            (Some(Login::Password { user, password }), Challenge::Basic) => {
                basic_header(&user, &password).map_err(broken)?
            }
            (_, Challenge::Basic) => return Ok(None),
            (login, Challenge::Bearer(bearer)) => {
                return self.bearer(need, bearer, login, refused).await.map(Some);
            }
        };
        Ok(Some(header).filter(|header| Some(header) != refused))
    }

    async fn login_for(&self, need: Need<'_>) -> Result<Option<Login>, RegistryError> {
        let repository = need.scopes.first().map(|scope| scope.repository.as_str());
        let repository = repository.unwrap_or_default();
        let found = self.logins().find(&need.host.name, repository).await;
        found.map_err(|source| {
            RegistryError::setup(format!("find credentials for `{}`", need.host.name), source)
        })
    }

    /// Returns a token from the cache, or fetches it while all others who need it wait.
    async fn bearer(
        &self,
        need: Need<'_>,
        bearer: &Bearer,
        login: Option<Login>,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Trouble> {
        let slot = need.host.auth.slot(need.scopes);
        let mut slot = slot.lock().await;
        if let Some(header) = slot.as_ref().and_then(|token| token.usable(refused)) {
            return Ok(header);
        }
        *slot = None;
        let (token, lifetime) = self.fetch_token(need, bearer, login).await?;
        let token = Token::new(&token, lifetime).map_err(|_| {
            let text = "its token holds control characters";
            RegistryError::unusable(need.operation, reqwest::StatusCode::OK, text)
        })?;
        let header = token.header();
        *slot = Some(token);
        Ok(header)
    }

    async fn fetch_token(
        &self,
        need: Need<'_>,
        bearer: &Bearer,
        login: Option<Login>,
    ) -> Result<(String, Option<u64>), Trouble> {
        let realm = self.realm(need, bearer).await?;
        let name = address::authority(&realm);
        let operation = need.operation.at(&name);
        let scopes = scope::wanted(need.scopes, bearer.scope.as_deref());
        let request = token_request(realm, bearer.service.as_deref(), &scopes, login.as_ref())
            .map_err(|source| RegistryError::setup("form a token request", source))?;
        let http = match name == need.host.name {
            true => need.host.http.clone(),
            false => self.host(&name)?.http.clone(),
        };
        let response = self.send(&http, request, &operation).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_body(response, MAX_BODY, &operation, self.config()).await?;
        if !status.is_success() {
            return Err(Trouble::status(&operation, status, &headers, &body));
        }
        let unusable = |text| RegistryError::unusable(&operation, status, text);
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| unusable("it is not the JSON of a token server"))?;
        let given = |token: Option<String>| token.filter(|token| !token.is_empty());
        let token = given(answer.token).or_else(|| given(answer.access_token));
        let token = token.ok_or_else(|| unusable("it holds no token"))?;
        Ok((token, answer.expires_in.and_then(|value| value.as_u64())))
    }

    /// Returns the URL of the token server, if it may have this registry's credentials.
    async fn realm(&self, need: Need<'_>, bearer: &Bearer) -> Result<Url, RegistryError> {
        let base = need.host.url("", self.config().connect_timeout).await?;
        let checked = bearer
            .realm
            .parse::<Url>()
            .map_err(|_| "it is not a URL".to_owned())
            .and_then(|realm| {
                let name = address::authority(&realm);
                let is_plain_allowed = may_be_plain(self.config(), &name) || name == need.host.name;
                if realm.scheme() == "http" && !is_plain_allowed {
                    return Err(format!("it leads to plain HTTP at `{name}`"));
                }
                address::check(&base, &realm, |_| is_plain_allowed)?;
                Ok(realm)
            });
        checked.map_err(|reason| {
            let text = format!("the token server that it names is refused: {reason}");
            RegistryError::unusable(need.operation, reqwest::StatusCode::UNAUTHORIZED, text)
        })
    }
}

/// Forms the request: GET as anyone or with a password, POST with an identity token.
fn token_request(
    mut realm: Url,
    service: Option<&str>,
    scopes: &[String],
    login: Option<&Login>,
) -> Result<Request, InvalidHeaderValue> {
    if let Some(Login::Identity(token)) = login {
        return Ok(identity_request(realm, service, scopes, token));
    }
    {
        let mut query = realm.query_pairs_mut();
        query.extend_pairs(service.map(|service| ("service", service)));
        query.extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
        if let Some(Login::Password { user, .. }) = login {
            query.append_pair("account", user);
        }
    }
    let mut request = Request::new(Method::GET, realm);
    if let Some(Login::Password { user, password }) = login {
        let header = basic_header(user, password)?;
        request.headers_mut().insert(AUTHORIZATION, header);
    }
    Ok(request)
}

fn identity_request(realm: Url, service: Option<&str>, scopes: &[String], token: &str) -> Request {
    // A scratch URL encodes the form.
    let mut form = realm.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("refresh_token", token)
        .append_pair("service", service.unwrap_or_default())
        .append_pair("scope", &scopes.join(" "));
    let body = form.query().unwrap_or_default().to_owned();
    let mut request = Request::new(Method::POST, realm);
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(CONTENT_TYPE, form_type);
    *request.body_mut() = Some(body.into());
    request
}
