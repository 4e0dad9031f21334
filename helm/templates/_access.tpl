{{/* Which component gets which Secret: as few as it can do with. */}}

{{/* Whether a component serves clients with the certificate: yes or empty. */}}
{{- define "chappe.certified" -}}
{{- if and .root.Values.tls.existingSecret (or (eq .component "embedded") (has .component .root.Values.tls.gateways)) -}}yes{{- end -}}
{{- end }}

{{- define "chappe.env" -}}
{{- $values := .root.Values -}}
# For the commands that are run in the pod: `chappe token`, `chappe config check`.
- {name: CHAPPE_CONFIG, value: /etc/chappe/chappe.toml}
- {name: CHAPPE_DATA, value: /var/lib/chappe}
{{- if include "chappe.certified" . }}
- {name: CHAPPE_TLS__CERT, value: /etc/chappe/tls/tls.crt}
- {name: CHAPPE_TLS__KEY, value: /etc/chappe/tls/tls.key}
{{- end }}
{{- if has .component (list "broker" "prepare") }}
{{- include "chappe.env.login" (dict "part" "LOG" "login" $values.kafka.login) }}
{{- include "chappe.env.login" (dict "part" "STORE" "login" $values.scylla.login) }}
{{- end }}
{{- if and (has .component (list "ws" "http" "quic")) $values.redis.existingSecret }}

- {name: CHAPPE_PRESENCE__KIND, value: redis}
{{- include "chappe.env.secret" (list "CHAPPE_PRESENCE__URL" $values.redis.existingSecret $values.redis.urlKey) }}
{{- end }}
{{- if and (has .component (list "http" "prepare")) $values.s3.url }}
- {name: CHAPPE_BLOBS__KIND, value: s3}
{{- include "chappe.env.secret" (list "CHAPPE_BLOBS__ACCESS_KEY" $values.s3.existingSecret $values.s3.accessKeyKey) }}
{{- include "chappe.env.secret" (list "CHAPPE_BLOBS__SECRET_KEY" $values.s3.existingSecret $values.s3.secretKeyKey) }}
{{- end }}
{{- end }}

{{- define "chappe.env.login" -}}
{{- if .login.existingSecret }}
{{- if .login.user }}
- {name: CHAPPE_{{ .part }}__USER, value: {{ .login.user | quote }}}
{{- else }}
{{- include "chappe.env.secret" (list (printf "CHAPPE_%s__USER" .part) .login.existingSecret .login.userKey) }}
{{- end }}
{{- include "chappe.env.secret" (list (printf "CHAPPE_%s__PASSWORD" .part) .login.existingSecret .login.passwordKey) }}
{{- end }}
{{- end }}

{{- define "chappe.env.secret" }}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef: {name: {{ index . 1 }}, key: {{ index . 2 | quote }}}
{{- end }}

{{/* Whole folders and no single files: what is mounted by file is never renewed. */}}
{{- define "chappe.mounts" -}}
{{- range $name, $_ := include "chappe.secret.files" . | fromYaml }}
- {name: {{ $name }}, mountPath: /etc/chappe/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "chappe.volumes" -}}
{{- range $name, $files := include "chappe.secret.files" . | fromYaml }}
- name: {{ $name }}
  secret:
    secretName: {{ $files.secret }}
    defaultMode: 0440
    items:
      {{- range $path, $key := $files.items }}
      - {key: {{ $key | quote }}, path: {{ $path }}}
      {{- end }}
{{- end }}
{{- end }}

{{/* Folder under /etc/chappe → its Secret, and file → key. */}}
{{- define "chappe.secret.files" -}}
{{- $values := .root.Values -}}
{{- $files := dict -}}
{{- if include "chappe.certified" . -}}
{{- $_ := set $files "tls" (dict "secret" $values.tls.existingSecret "items" (dict "tls.crt" "tls.crt" "tls.key" "tls.key")) -}}
{{- end -}}
{{- if has .component (list "broker" "prepare") -}}
{{- range $name := list "kafka" "scylla" -}}
{{- with (get $values $name).ca -}}
{{- if .existingSecret -}}
{{- $_ := set $files (printf "%s-ca" $name) (dict "secret" .existingSecret "items" (dict "ca.crt" .key)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.uplink.tlsSecret (has .component (list "broker" "ws" "http" "quic")) -}}
{{- $items := dict "ca.crt" "ca.crt" "tls.crt" "tls.crt" "tls.key" "tls.key" -}}
{{- $_ := set $files "uplink" (dict "secret" $values.uplink.tlsSecret "items" $items) -}}
{{- end -}}
{{- toYaml $files -}}
{{- end }}
