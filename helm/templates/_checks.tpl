{{/* What values.schema.json cannot say, or not in words that help. */}}

{{- define "chappe.checks" -}}
{{- $auth := .Values.config.auth -}}
{{- $clustered := eq .Values.mode "clustered" -}}
{{- if and $auth.jwks_url (not $auth.issuer) -}}
{{- fail "\n\nconfig.auth.issuer is needed with config.auth.jwks_url: the `iss` that tokens must carry." -}}
{{- end -}}
{{- if and $clustered (eq (toString $auth.development) "true") -}}
{{- fail "\n\nconfig.auth.development: in mode clustered every pod would have another secret. Set config.auth.jwks_url and config.auth.issuer, or config.auth.api_keys." -}}
{{- end -}}
{{- if and (or $clustered (eq (toString $auth.development) "false")) (not $auth.jwks_url) (not $auth.api_keys) -}}
{{- fail "\n\nconfig.auth: nobody could sign in. Set config.auth.jwks_url and config.auth.issuer to those of your issuer, or config.auth.api_keys for back ends." -}}
{{- end -}}
{{- if $clustered -}}
{{- include "chappe.checks.clustered" . -}}
{{- else if and .Values.tls.existingSecret (ne (len .Values.tls.gateways) 3) -}}
{{- fail "\n\ntls.gateways: in mode embedded one process serves all three, so it is [ws, http, quic]." -}}
{{- end -}}
{{- $ws := dict "root" . "component" ($clustered | ternary "ws" "embedded") -}}
{{- if and .Values.test.tokenSecret (not .Values.test.url) (include "chappe.certified" $ws) -}}
{{- fail "\n\ntest.url is needed with test.tokenSecret and a certificate: an address that the certificate is for." -}}
{{- end -}}
{{- if and .Values.ingress.enabled $clustered (not (and .Values.gateways.ws.enabled .Values.gateways.http.enabled)) -}}
{{- fail "\n\ningress.enabled needs gateways.ws.enabled and gateways.http.enabled: it sends /v1/ws to the one and all else to the other." -}}
{{- end -}}
{{- end }}

{{- define "chappe.checks.clustered" -}}
{{- if and (not .Values.redis.url) (not .Values.redis.existingSecret) -}}
{{- fail "\n\nredis.url is needed in mode clustered: redis://host:6379, or redis.existingSecret with the whole URL." -}}
{{- end -}}
{{- if and .Values.redis.url .Values.redis.existingSecret -}}
{{- fail "\n\nredis.url and redis.existingSecret exclude each other: the Secret holds the whole URL." -}}
{{- end -}}
{{- with .Values.s3 -}}
{{- if ne (len (compact (list .url .bucket .existingSecret))) (empty .url | ternary 0 3) -}}
{{- fail "\n\ns3.url, s3.bucket and s3.existingSecret go together: all three, or none for no files." -}}
{{- end -}}
{{- end -}}
{{- if gt (int64 .Values.prepare.topicMinInsync) (int64 .Values.prepare.topicReplicas) -}}
{{- fail "\n\nprepare.topicMinInsync must not be more than prepare.topicReplicas: nothing could be written." -}}
{{- end -}}
{{- with .Values.kafka -}}
{{- if and .login.existingSecret (eq .mechanism "plain") (not .tls) (not .ca.existingSecret) -}}
{{- fail "\n\nkafka.tls: with kafka.mechanism=plain the password would be sent as it is. Set kafka.tls=true, or name an authority in kafka.ca." -}}
{{- end -}}
{{- end -}}
{{- $gateways := .Values.gateways -}}
{{- if not (or $gateways.ws.enabled $gateways.http.enabled $gateways.quic.enabled) -}}
{{- fail "\n\ngateways: at least one of ws, http and quic must be enabled." -}}
{{- end -}}
{{- if and $gateways.quic.enabled (not (and .Values.tls.existingSecret (has "quic" .Values.tls.gateways))) -}}
{{- fail "\n\ntls.existingSecret: QUIC needs a certificate that all its pods share. Name a Secret of type kubernetes.io/tls (with quic in tls.gateways), or set gateways.quic.enabled=false." -}}
{{- end -}}
{{- range $name, $gateway := $gateways -}}
{{- if and $gateway.enabled (gt (int64 $gateway.replicas) 1) (ge (int64 $gateway.maxUnavailable) (int64 $gateway.replicas)) -}}
{{- fail (printf "\n\ngateways.%s.maxUnavailable must be less than gateways.%s.replicas: a drain of nodes could take all of them." $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and (gt (int64 .Values.broker.replicas) 1) (ge (int64 .Values.broker.maxUnavailable) (int64 .Values.broker.replicas)) -}}
{{- fail "\n\nbroker.maxUnavailable must be less than broker.replicas: a drain of nodes could take all of them." -}}
{{- end -}}
{{- end }}
