# What `cmake --install` puts where. Component erofs_oci-dev: headers, the CMake package and the
# pkg-config files, all of them without machine code; component mount-oci: the tool.
include(CMakePackageConfigHelpers)
set(erofs_oci_cmake_dir ${CMAKE_INSTALL_DATADIR}/cmake/erofs_oci)
set(erofs_oci_pc_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)

function(erofs_oci_pc name description requires libs cflags)
  list(JOIN requires ", " requires)
  configure_file(cmake/erofs_oci.pc.in erofs_oci/${name}.pc @ONLY)
  install(
    FILES ${CMAKE_CURRENT_BINARY_DIR}/erofs_oci/${name}.pc
    DESTINATION ${erofs_oci_pc_dir}
    COMPONENT erofs_oci-dev)
endfunction()

set(in_umbrella ${erofs_oci_components})
list(REMOVE_ITEM in_umbrella testing)
set(erofs_oci_below)
foreach(name IN LISTS erofs_oci_components)
  install(
    TARGETS erofs_oci_${name}
    EXPORT erofs_oci-${name}
    FILE_SET HEADERS
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    COMPONENT erofs_oci-dev)
  install(
    EXPORT erofs_oci-${name}
    FILE erofs_oci-${name}-targets.cmake
    NAMESPACE erofs_oci::
    DESTINATION ${erofs_oci_cmake_dir}
    COMPONENT erofs_oci-dev)

  get_property(below TARGET erofs_oci_${name} PROPERTY erofs_oci_below)
  list(JOIN below " " below)
  string(APPEND erofs_oci_below "set(_erofs_oci_below_${name} ${below})\n")

  get_property(requires TARGET erofs_oci_${name} PROPERTY erofs_oci_requires)
  set(libs)
  set(cflags)
  if(name STREQUAL core)
    set(libs -pthread)
    set(cflags " -pthread")
  elseif(name STREQUAL testing)
    set(libs -lrapidcheck)
  elseif(name STREQUAL gzip AND isal_FOUND)
    set(cflags " -DEROFS_OCI_HAVE_ISAL=1")
  endif()
  erofs_oci_pc(erofs_oci-${name} "erofs_oci, component ${name}" "${requires}" "${libs}" "${cflags}")
endforeach()

list(TRANSFORM in_umbrella PREPEND erofs_oci- OUTPUT_VARIABLE requires)
erofs_oci_pc(erofs_oci "${PROJECT_DESCRIPTION}" "${requires}" "" "")

install(
  TARGETS erofs_oci
  FILE_SET HEADERS
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  COMPONENT erofs_oci-dev)

configure_package_config_file(
  cmake/erofs_oci-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/erofs_oci/erofs_oci-config.cmake
  INSTALL_DESTINATION ${erofs_oci_cmake_dir}
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
  ${CMAKE_CURRENT_BINARY_DIR}/erofs_oci/erofs_oci-config-version.cmake
  COMPATIBILITY SameMinorVersion
  ARCH_INDEPENDENT)
install(
  FILES ${CMAKE_CURRENT_BINARY_DIR}/erofs_oci/erofs_oci-config.cmake
        ${CMAKE_CURRENT_BINARY_DIR}/erofs_oci/erofs_oci-config-version.cmake
  DESTINATION ${erofs_oci_cmake_dir}
  COMPONENT erofs_oci-dev)
