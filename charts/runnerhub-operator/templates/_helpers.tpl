{{- define "runnerhub-operator.labels" -}}
app.kubernetes.io/name: runnerhub-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "runnerhub-operator.selector" -}}
app.kubernetes.io/name: runnerhub-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Image reference: (dict "root" . "name" "postgres") */ -}}
{{- define "runnerhub-operator.image" -}}
{{- $image := .root.Values.image -}}
{{- with get $image.overrides .name -}}
{{ . }}
{{- else -}}
{{ $image.registry }}/{{ .name }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* What the operator may do where clusters live; it can grant to pods only what it may do itself. */ -}}
{{- define "runnerhub-operator.rules" -}}
- apiGroups: [runnerhub.io]
  resources: [runnerhubclusters]
  verbs: [get, list, watch]
- apiGroups: [runnerhub.io]
  resources: [runnerhubclusters/status]
  verbs: [patch]
- apiGroups: [runnerhub.io]
  resources: [runnerhubclusters/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [""]
  resources: [secrets, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, update, patch]
{{- end }}
