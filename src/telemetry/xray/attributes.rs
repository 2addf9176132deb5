//! What rules look at: the service, and the attributes that a root span begins with.

use std::borrow::Cow;

use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;

use crate::semconv::OTHER;

/// The service as rules see it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    /// The type in the words of X-Ray, such as `AWS::ECS::Container`; empty outside of AWS.
    pub(super) kind: &'static str,
    /// `None`: not known from the resource.
    arn: Option<String>,
    is_lambda: bool,
}

impl Service {
    pub(super) fn of(resource: &Resource) -> Self {
        let text = |key| {
            resource
                .get(&Key::from_static_str(key))
                .map(|it| it.to_string())
        };
        let platform = text("cloud.platform");
        let kind = match platform.as_deref() {
            Some("aws_ec2") => "AWS::EC2::Instance",
            Some("aws_ecs") => "AWS::ECS::Container",
            Some("aws_eks") => "AWS::EKS::Container",
            Some("aws_elastic_beanstalk") => "AWS::ElasticBeanstalk::Environment",
            Some("aws_lambda") => "AWS::Lambda::Function",
            Some("aws_app_runner") => "AWS::AppRunner::Service",
            _ => "",
        };
        let is_lambda = platform.as_deref() == Some("aws_lambda");
        let of_lambda = || text("cloud.resource_id").or_else(|| text("faas.id"));
        Self {
            name: text("service.name").unwrap_or_default(),
            kind,
            arn: text("aws.ecs.container.arn").or_else(|| is_lambda.then(of_lambda).flatten()),
            is_lambda,
        }
    }
}

/// A root span that begins. What is not known of it is empty.
#[derive(Debug)]
pub(super) struct RootSpan<'a> {
    pub(super) method: Cow<'a, str>,
    pub(super) host: Cow<'a, str>,
    /// `None`: at most the whole URL is known.
    pub(super) path: Option<Cow<'a, str>>,
    pub(super) url: Option<Cow<'a, str>>,
    pub(super) arn: Cow<'a, str>,
    pub(super) attributes: &'a [KeyValue],
}

impl<'a> RootSpan<'a> {
    /// Reads today's semantic conventions and those before 1.21, in which a service of the user's own may still
    /// name its spans' attributes.
    pub(super) fn of(attributes: &'a [KeyValue], service: &'a Service) -> Self {
        let (mut method, mut original) = (None, None);
        let (mut host, mut path, mut url, mut resource_id) = (None, None, None, None);
        for attribute in attributes {
            let place = match attribute.key.as_str() {
                "http.request.method" | "http.method" => &mut method,
                "http.request.method_original" => &mut original,
                "server.address" | "net.host.name" | "http.host" => &mut host,
                "url.path" | "http.target" => &mut path,
                "url.full" | "http.url" => &mut url,
                "cloud.resource_id" | "faas.id" => &mut resource_id,
                _ => continue,
            };
            place.get_or_insert_with(|| attribute.value.as_str());
        }
        let arn = match &service.arn {
            Some(arn) => Some(Cow::Borrowed(arn.as_str())),
            None => resource_id.filter(|_| service.is_lambda),
        };
        Self {
            method: original
                .filter(|_| method.as_deref() == Some(OTHER))
                .or(method)
                .unwrap_or_default(),
            host: host.unwrap_or_default(),
            path,
            url,
            arn: arn.unwrap_or_default(),
            attributes,
        }
    }
}
