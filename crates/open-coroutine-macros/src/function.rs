//! The function that an attribute stands on, and what becomes of it.
//!
//! The user's function moves, unchanged, into one of the same name without
//! captures. So the runtime gets a plain `fn` pointer, which may go to any
//! thread, whatever the function does and returns.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, ItemFn, ReturnType, Signature};

use crate::settings::Settings;

/// Which attribute it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Main,
    Test,
}

impl Entry {
    fn attribute(self) -> &'static str {
        match self {
            Self::Main => "#[open_coroutine::main]",
            Self::Test => "#[open_coroutine::test]",
        }
    }
}

/// What replaces the function. Errors become `compile_error!`s beside the
/// function as it was, so that its absence is no further error.
pub(crate) fn expand(entry: Entry, arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = match syn::parse2::<ItemFn>(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            let message = format!("{} belongs on a function: {error}", entry.attribute());
            let error = Error::new(error.span(), message).into_compile_error();
            return quote!(#error #item);
        }
    };
    let settings = Settings::parse(arguments);
    match (settings, check(entry, &function)) {
        (Ok(settings), Ok(())) => generate(entry, &settings, &function),
        (Ok(_), Err(error)) | (Err(error), Ok(())) => refuse(error, &function),
        (Err(mut error), Err(other)) => {
            error.combine(other);
            refuse(error, &function)
        }
    }
}

fn generate(entry: Entry, settings: &Settings, function: &ItemFn) -> TokenStream {
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
    } = function;
    let (name, output, facade) = (&sig.ident, &sig.output, &settings.facade);
    let config = settings.config();
    let (harness, run) = match entry {
        Entry::Main => (None, quote!(main)),
        Entry::Test => (Some(quote!(#[::core::prelude::v1::test])), quote!(test)),
    };
    // A type that cannot be returned is reported where it is written.
    let place = match output {
        ReturnType::Default => name.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    let body = quote_spanned!(place=> #name);
    let call = quote!(#facade::__private::#run(#config, #body));
    // A function that returns nothing stays one: `#[should_panic]` asks for it,
    // and the exit code says nothing then.
    let (outer, call) = match output {
        ReturnType::Default => (None, quote!(#call;)),
        ReturnType::Type(..) => (Some(quote!(-> ::std::process::ExitCode)), call),
    };
    quote! {
        #harness
        #(#attrs)*
        #vis fn #name() #outer {
            fn #name() #output #block
            #call
        }
    }
}

/// The errors, and the function in a shape that causes no others.
fn refuse(error: Error, function: &ItemFn) -> TokenStream {
    let errors = error.into_compile_error();
    let ItemFn { vis, sig, .. } = function;
    let name = &sig.ident;
    quote! {
        #errors
        #[allow(dead_code)]
        #vis fn #name() {}
    }
}

fn check(entry: Entry, function: &ItemFn) -> syn::Result<()> {
    let attribute = entry.attribute();
    let Signature {
        constness,
        asyncness,
        unsafety,
        abi,
        ident,
        generics,
        inputs,
        ..
    } = &function.sig;
    if let Some(token) = asyncness {
        let message = format!("{attribute} is for blocking code: remove `async`");
        return Err(Error::new(token.span, message));
    }
    if !inputs.is_empty() {
        let message = format!("a function with {attribute} takes no arguments");
        return Err(Error::new(inputs.span(), message));
    }
    if !generics.params.is_empty() {
        let message = format!("a function with {attribute} cannot be generic");
        return Err(Error::new(generics.span(), message));
    }
    let qualifiers = [
        constness.as_ref().map(|token| ("const", token.span)),
        unsafety.as_ref().map(|token| ("unsafe", token.span)),
        abi.as_ref().map(|abi| ("extern", abi.extern_token.span)),
    ];
    if let Some((word, span)) = qualifiers.into_iter().flatten().next() {
        let message = format!("a function with {attribute} cannot be `{word}`");
        return Err(Error::new(span, message));
    }
    if entry == Entry::Main && ident != "main" {
        let message = format!("{attribute} belongs on `fn main`; call `init` elsewhere");
        return Err(Error::new(ident.span(), message));
    }
    let is_test = |path: &syn::Path| {
        path.segments
            .last()
            .is_some_and(|last| last.ident == "test")
    };
    if let Some(attr) = function.attrs.iter().find(|attr| is_test(attr.path())) {
        let message = format!("{attribute} cannot stand beside another test attribute");
        return Err(Error::new(attr.span(), message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expansion(entry: Entry, arguments: &str, item: &str) -> String {
        expand(entry, arguments.parse().unwrap(), item.parse().unwrap()).to_string()
    }

    fn assert_expands(entry: Entry, arguments: &str, item: &str, expected: &str) {
        let expected: TokenStream = expected.parse().unwrap();
        assert_eq!(expected.to_string(), expansion(entry, arguments, item));
    }

    #[test]
    fn main_runs_a_function_of_the_same_name_inside() {
        assert_expands(
            Entry::Main,
            "hook = false",
            "/// Documented.\n #[allow(x)] fn main() -> io::Result<()> { work() }",
            "/// Documented.\n #[allow(x)] fn main() -> ::std::process::ExitCode {
                fn main() -> io::Result<()> { work() }
                ::open_coroutine::__private::main(
                    ::open_coroutine::Config::default().hook(false), main)
            }",
        );
    }

    #[test]
    fn a_test_stays_a_test() {
        assert_expands(
            Entry::Test,
            "crate = oc",
            "#[should_panic] pub fn it_panics() { panic!() }",
            "#[::core::prelude::v1::test] #[should_panic]
            pub fn it_panics() {
                fn it_panics() { panic!() }
                oc::__private::test(oc::Config::default(), it_panics);
            }",
        );
    }

    #[test]
    fn functions_that_cannot_be_an_entry_are_refused() {
        let cases = [
            ("async fn main() {}", "blocking code: remove `async`"),
            ("fn main(n: u8) {}", "takes no arguments"),
            ("fn main<T>() {}", "cannot be generic"),
            ("const fn main() {}", "cannot be `const`"),
            ("unsafe fn main() {}", "cannot be `unsafe`"),
            ("extern \"C\" fn main() {}", "cannot be `extern`"),
            ("fn other() {}", "belongs on `fn main`"),
            (
                "#[test] fn main() {}",
                "cannot stand beside another test attribute",
            ),
            ("struct Main;", "belongs on a function"),
        ];
        for (item, message) in cases {
            let expansion = expansion(Entry::Main, "", item);
            assert!(expansion.contains("compile_error !"), "{item}: {expansion}");
            assert!(expansion.contains(message), "{item}: {expansion}");
        }
    }

    #[test]
    fn errors_of_arguments_and_function_come_together_and_leave_a_main() {
        let expansion = expansion(Entry::Main, "nope = 1", "async fn main() {}");
        assert!(expansion.contains("unknown key `nope`"));
        assert!(expansion.contains("remove `async`"));
        assert!(expansion.contains("fn main () { }"));
    }
}
