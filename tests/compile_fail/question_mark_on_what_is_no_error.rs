//! `?` on what is no error: the compiler's own words, which name the type and the trait it lacks. What to
//! do, `.map_err(Failure::transient)?`, stands in the documentation of `Failure`.

mod host;
use host::*;

struct EstablishClaim;

fn texts() -> Result<i64, String> {
    Ok(1)
}

fn boxed() -> Result<i64, Box<dyn std::error::Error>> {
    Ok(1)
}

struct VbmsError;

fn own() -> Result<i64, VbmsError> {
    Ok(1)
}

impl Processor for EstablishClaim {
    type Model = Review;

    async fn process(&self, _: &Review, _: &Attempt) -> Outcome {
        //~ `?` couldn't convert the error: `String: std::error::Error` is not satisfied
        //~ required for `Failure` to implement `From<String>`
        texts()?;
        //~ required for `Failure` to implement `From<Box<dyn std::error::Error>>`
        boxed()?;
        //~ `?` couldn't convert the error: `VbmsError: std::error::Error` is not satisfied
        own()?;
        Ok(())
    }
}

fn main() {}
