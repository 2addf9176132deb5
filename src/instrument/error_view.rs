use std::{any::Any, error::Error};

/// Sees a service's error as the [`Error`] that it is, with the name of its type, when it is of the
/// type that the view is for. A tower service may fail with types that are no [`Error`].
pub(crate) type ErrorView = fn(&dyn Any) -> Option<(&(dyn Error + 'static), &'static str)>;

/// The view for errors of type `E`.
pub(crate) fn view_as<E: Error + 'static>(
    error: &dyn Any,
) -> Option<(&(dyn Error + 'static), &'static str)> {
    let error = error.downcast_ref::<E>()?;
    Some((error, std::any::type_name::<E>()))
}
