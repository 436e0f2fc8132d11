//! The one way by which blocking work crosses from async code.

/// Runs `f` on a thread that may block and returns its result; a panic of `f` is resumed here.
///
/// Dropping the future does not stop `f` once it has begun: work that can take long watches a
/// flag, or holds what its caller closes.
pub async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let error = match tokio::task::spawn_blocking(f).await {
        Ok(value) => return value,
        Err(error) => error,
    };
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The runtime is shutting down: this future is about to be dropped, too.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_what_the_closure_returns() {
        let here = std::thread::current().id();
        let there = blocking(|| std::thread::current().id()).await;
        assert_ne!(here, there);
    }

    #[tokio::test]
    #[should_panic(expected = "the closure's own words")]
    async fn resumes_a_panic() {
        blocking(|| panic!("the closure's own words")).await;
    }
}
