obj.spec.mode = "Active"
return obj
